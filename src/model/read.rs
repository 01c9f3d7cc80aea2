//! stub
use super::*;
use crate::yaml::Node;
use crate::diagnostic::{Diagnostic, FileId};
pub struct ReadContext<'a> { pub files: &'a crate::diagnostic::Files, pub diagnostics: Vec<Diagnostic> }
impl<'a> ReadContext<'a> { pub fn new(files: &'a crate::diagnostic::Files) -> Self { Self { files, diagnostics: Vec::new() } } }
pub fn read_pipeline(_node: &Node, _file: FileId, _path: &str, _context: &mut ReadContext<'_>) -> Pipeline { unimplemented!() }
pub fn read_agents(_node: &Node, _file: FileId, _path: &str, _context: &mut ReadContext<'_>) -> Catalogue { unimplemented!() }
pub fn read_settings(_node: &Node, _context: &mut ReadContext<'_>) -> Settings { unimplemented!() }
pub fn read_blueprint(_node: &Node, _context: &mut ReadContext<'_>) -> Blueprint { unimplemented!() }
pub fn blueprint_from_json(_value: &serde_json::Value) -> Result<Blueprint, Vec<String>> { unimplemented!() }
pub fn merge_includes(_node: &Node, _includes: &[(&str, &Node)]) -> Node { unimplemented!() }
