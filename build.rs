//! Makes Rust of the published protocol in `proto/`, without any program that the machine would have to have.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["task", "envelope", "worker", "runs"].map(|name| format!("tol/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(&files)?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("tol.v1.fds"), compiler.encode_file_descriptor_set())?;
    // A message is made once and sent: a box around its payload would save nothing.
    let large = r#"#[expect(clippy::large_enum_variant, reason = "one is made for each message and moved once")]"#;
    tonic_prost_build::configure()
        .enum_attribute("tol.v1.Envelope.payload", large)
        .enum_attribute("tol.v1.ToWorker.message", large)
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
