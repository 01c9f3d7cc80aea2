//! White space around tags: `~` takes all of it away, and a block tag or comment alone on its line takes the line.

/// A piece of text between tags, and what the tags around it take from it.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub text: String,
}

/// What a tag does to the text around it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Edges {
    /// `{{~`.
    pub trim_before: bool,
    /// `~}}`.
    pub trim_after: bool,
    /// A block's tag or a comment: if nothing else is on its line, the line goes with it.
    pub may_own_line: bool,
}

/// Takes away what the tags take. Tag number `n` stands between the pieces `n` and `n + 1`.
pub(super) fn trim(pieces: &mut [Piece], edges: &[Edges]) {
    let mut cuts: Vec<(usize, usize)> = pieces.iter().map(|piece| (0, piece.text.len())).collect();
    for (index, edge) in edges.iter().enumerate() {
        let (Some(before), Some(after)) = (pieces.get(index), pieces.get(index + 1)) else { continue };
        let is_last = index + 2 == pieces.len();
        let own_line = if edge.may_own_line {
            line_tail(&before.text, index == 0).zip(line_head(&after.text, is_last))
        } else {
            None
        };
        if let (Some((tail, _)), Some(cut)) = (own_line, cuts.get_mut(index)) {
            cut.1 = cut.1.min(tail);
        }
        if let (Some((_, head)), Some(cut)) = (own_line, cuts.get_mut(index + 1)) {
            cut.0 = cut.0.max(head);
        }
        if let (true, Some(cut)) = (edge.trim_before, cuts.get_mut(index)) {
            cut.1 = cut.1.min(before.text.trim_end().len());
        }
        if let (true, Some(cut)) = (edge.trim_after, cuts.get_mut(index + 1)) {
            cut.0 = cut.0.max(after.text.len() - after.text.trim_start().len());
        }
    }
    for (piece, (start, end)) in pieces.iter_mut().zip(cuts) {
        if start > 0 || end < piece.text.len() {
            piece.text = piece.text.get(start..end).unwrap_or_default().to_owned();
        }
    }
}

/// Where the blanks before a tag begin, if there is nothing else between the line's start and the tag.
fn line_tail(text: &str, is_first: bool) -> Option<usize> {
    let kept = text.trim_end_matches([' ', '\t']);
    (kept.ends_with('\n') || (kept.is_empty() && is_first)).then_some(kept.len())
}

/// Where the next line begins, if there is nothing else between the tag and the line's end.
fn line_head(text: &str, is_last: bool) -> Option<usize> {
    let rest = text.trim_start_matches([' ', '\t']);
    let blanks = text.len() - rest.len();
    if rest.is_empty() {
        return is_last.then_some(blanks);
    }
    let line_end = if rest.starts_with("\r\n") { 2 } else { 1 };
    (line_end == 2 || rest.starts_with('\n')).then_some(blanks + line_end)
}
