//! Texts and tags in a row, to items with blocks in them. The parser has paired the blocks and bounded their depth.

use super::spaces::Piece;
use super::tree::{Argument, Block, BlockKind, Item};

/// A tag, before blocks are put together.
#[derive(Debug)]
pub(super) enum Tag {
    /// A comment, or one that was wrong.
    Nothing,
    Value(Argument),
    Open {
        kind: BlockKind,
        argument: Argument,
        parameters: Vec<Box<str>>,
    },
    Else,
    ElseOpen {
        kind: BlockKind,
        argument: Argument,
        parameters: Vec<Box<str>>,
    },
    Close,
}

/// Puts all pieces and tags together.
pub(super) fn build(pieces: &mut impl Iterator<Item = Piece>, tags: &mut impl Iterator<Item = Tag>) -> Vec<Item> {
    run(pieces, tags).0
}

/// What ended a run of items.
enum Ending {
    Text,
    Else,
    ElseOpen(BlockKind, Argument, Vec<Box<str>>),
    Close,
}

/// Puts pieces and tags together, down to the end of the block around them. Blocks are paired and not too deep here.
fn run(pieces: &mut impl Iterator<Item = Piece>, tags: &mut impl Iterator<Item = Tag>) -> (Vec<Item>, Ending) {
    let mut items: Vec<Item> = Vec::new();
    loop {
        if let Some(piece) = pieces.next().filter(|piece| !piece.text.is_empty()) {
            items.push(Item::Text(piece.text.into()));
        }
        match tags.next() {
            None => return (items, Ending::Text),
            Some(Tag::Nothing) => {}
            Some(Tag::Value(argument)) => items.push(Item::Value(argument)),
            Some(Tag::Open { kind, argument, parameters }) => {
                items.push(block(kind, argument, parameters, pieces, tags));
            }
            Some(Tag::Else) => return (items, Ending::Else),
            Some(Tag::ElseOpen { kind, argument, parameters }) => {
                return (items, Ending::ElseOpen(kind, argument, parameters));
            }
            Some(Tag::Close) => return (items, Ending::Close),
        }
    }
}

fn block(
    kind: BlockKind,
    argument: Argument,
    parameters: Vec<Box<str>>,
    pieces: &mut impl Iterator<Item = Piece>,
    tags: &mut impl Iterator<Item = Tag>,
) -> Item {
    let (body, ending) = run(pieces, tags);
    let otherwise = match ending {
        Ending::Close | Ending::Text => None,
        Ending::Else => Some(run(pieces, tags).0),
        // The block of an `else if` ends where the block around it ends.
        Ending::ElseOpen(kind, argument, parameters) => Some(vec![block(kind, argument, parameters, pieces, tags)]),
    };
    Item::Block(Box::new(Block { kind, argument, parameters, body, otherwise }))
}
