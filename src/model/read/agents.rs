//! The agent catalogue.

use indexmap::IndexMap;

use crate::diagnostic::{FileId, Spanned};
use crate::model::agents::{Agent, Catalogue, Price, ProviderKind};
use crate::model::read::retry::read_retry;
use crate::model::read::tool::read_tools;
use crate::model::read::{ReadContext, scalar};
use crate::yaml::Node;

/// The most tokens of one answer when an agent says nothing.
const MAX_TOKENS: u64 = 4096;

/// Reads `agents.yaml`. `path` is the file's path within the project.
pub fn read_agents(node: &Node, file: FileId, path: &str, context: &mut ReadContext<'_>) -> Catalogue {
    Catalogue {
        file: Some(file),
        path: Box::from(path),
        agents: read_agent_map(node, context),
        tools: read_tools(node, context),
    }
}

/// Reads `agents:` of a catalogue or an include.
pub(super) fn read_agent_map(document: &Node, context: &mut ReadContext<'_>) -> IndexMap<Box<str>, Agent> {
    let mut agents = IndexMap::new();
    for entry in scalar::entries(document, "agents") {
        let id = Spanned::new(entry.key.clone(), entry.key_span);
        agents.insert(entry.key.clone(), read_agent(&entry.node, id, context));
    }
    agents
}

fn read_agent(node: &Node, id: Spanned<Box<str>>, context: &mut ReadContext<'_>) -> Agent {
    let price = node.get("price").and_then(|price| {
        Some(Price {
            input_per_million: scalar::number(price, "input_per_million")?,
            output_per_million: scalar::number(price, "output_per_million")?,
        })
    });
    Agent {
        name: scalar::spanned(node, "name").unwrap_or_else(|| id.clone()),
        role: scalar::text(node, "type").unwrap_or_default(),
        system_prompt: scalar::text(node, "system_prompt").unwrap_or_default(),
        temperature: scalar::number(node, "temperature"),
        max_tokens: scalar::unsigned(node, "max_tokens").unwrap_or(MAX_TOKENS),
        model: scalar::text(node, "model"),
        provider: node.get("provider").and_then(|value| Some(Spanned::new(provider(value.as_str()?)?, value.span))),
        command: scalar::texts(node, "command"),
        tools: node.get("tools").map(|_| scalar::spanned_texts(node, "tools")),
        deny_tools: scalar::spanned_texts(node, "deny_tools"),
        capabilities: scalar::texts(node, "capabilities"),
        retry: node.get("retry").and_then(|retry| read_retry(retry, None, context)),
        price,
        base: context.folder(id.span),
        id,
    }
}

/// The provider that a word names.
pub(super) fn provider(text: &str) -> Option<ProviderKind> {
    match text {
        "command" => Some(ProviderKind::Command),
        "anthropic" => Some(ProviderKind::Anthropic),
        "openai" => Some(ProviderKind::Openai),
        _ => None,
    }
}
