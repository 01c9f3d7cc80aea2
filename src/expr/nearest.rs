//! The nearest right spelling of a name. It knows nothing of where the names come from.

/// Names longer than this are not compared: nobody misspells them by a letter.
const LONGEST_NAME: usize = 64;

/// How many names a message lists at most.
const LISTED_NAMES: usize = 10;

/// The candidate that is at most a third of its letters away from `name`, if there is one; of equally near ones the
/// first.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.chars().take(LONGEST_NAME + 1).collect();
    if name.len() > LONGEST_NAME {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let letters: Vec<char> = candidate.chars().take(LONGEST_NAME + 1).collect();
        let allowed = (name.len().max(letters.len()) / 3).max(1);
        if letters.len() > LONGEST_NAME || letters.len().abs_diff(name.len()) > allowed || letters.len() < 2 {
            continue;
        }
        let distance = distance(&name, &letters);
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// A help text for a name that is not among the candidates: the nearest, else a list of what there is.
pub(super) fn suggestion<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(found) = nearest(name, candidates.clone()) {
        return Some(format!("did you mean `{found}`?"));
    }
    listed(candidates).map(|names| format!("there is {names}"))
}

/// The names in backticks, the first ten of them; `None` if there are none.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut names = names.into_iter();
    let shown: Vec<String> = names.by_ref().take(LISTED_NAMES).map(|name| format!("`{}`", shortened(name))).collect();
    let more = names.count();
    match (shown.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(shown.join(", ")),
        (false, more) => Some(format!("{} and {more} more", shown.join(", "))),
    }
}

/// A text for a message: the first forty characters of a long one.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Edits between two words: insert, delete, replace, swap neighbours; a change of case counts as nothing more than one.
fn distance(one: &[char], two: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=two.len()).collect();
    for (row, a) in one.iter().enumerate() {
        let mut current = Vec::with_capacity(two.len() + 1);
        current.push(row + 1);
        for (column, b) in two.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut least = (at(&above, column) + usize::from(a != b))
                .min(at(&above, column + 1) + 1)
                .min(at(&current, column) + 1);
            let swapped = row > 0 && column > 0 && one.get(row - 1) == Some(b) && two.get(column - 1) == Some(a);
            if swapped {
                least = least.min(at(&before, column - 1) + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, candidates: &[&str], expect: Option<&str>) {
        assert_eq!(nearest(name, candidates.iter().copied()), expect, "{name}");
    }

    #[test]
    fn the_nearest_is_found_and_the_far_is_not() {
        check("evidnce", &["answer", "evidence"], Some("evidence"));
        check("param", &["params", "run"], Some("params"));
        check("secret", &["secrets"], Some("secrets"));
        check("staus", &["outputs", "status"], Some("status"));
        check("bdy", &["status", "headers", "body"], Some("body"));
        check("jsn", &["json", "lookup"], Some("json"));
        check("ouptuts", &["outputs"], Some("outputs"));
        check("c", &["a", "b"], None);
        check("nope", &["fetch", "page"], None);
    }

    #[test]
    fn a_list_ends_after_ten() {
        let names: Vec<String> = (0..12).map(|n| format!("n{n}")).collect();
        let text = listed(names.iter().map(String::as_str)).unwrap_or_default();
        assert!(text.ends_with("`n9` and 2 more"), "{text}");
    }
}
