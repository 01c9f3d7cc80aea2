//! "Did you mean": the candidate that a misspelt word most likely stands for.
//!
//! It compares spellings only. Who may be a candidate, and how the answer is worded, is up to the caller.

use std::cell::Cell;

/// Words longer than this, in characters, are not typing mistakes of a name; they get no answer.
const LONGEST_WORD: usize = 128;

/// How many candidates one check looks at. A file of 100,000 wrong names among 100,000 right ones would otherwise be
/// compared 10 billion times over; after the first of them nobody reads what the others are near to.
const MOST_COMPARED: usize = 1_000_000;

thread_local! {
    /// How many candidates may still be looked at by the check that this thread makes.
    static LEFT: Cell<usize> = const { Cell::new(MOST_COMPARED) };
}

/// Begins a new check: as many candidates as ever may be looked at.
pub fn renew_comparisons() {
    LEFT.set(MOST_COMPARED);
}

/// Takes so many candidates from what this check may look at; false if it has looked at too many.
pub fn may_compare(candidates: usize) -> bool {
    let left = LEFT.get().checked_sub(candidates);
    LEFT.set(left.unwrap_or_default());
    left.is_some()
}

/// Gives the candidate whose spelling is nearest to `word`, if one is near enough and the check has not looked at too
/// many already (see [`renew_comparisons`]).
///
/// Upper and lower case, and dashes and underscores, count as the same. The distance is counted in inserted, left out
/// and replaced characters and swapped neighbours; about a third of the word may differ. Among equally near
/// candidates one with the same first letter wins, then the first. A candidate that is `word` itself is never given.
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = normalised(word).take(LONGEST_WORD + 1).collect();
    if wanted.is_empty() || wanted.len() > LONGEST_WORD {
        return None;
    }
    let bound = (wanted.len().max(3) / 3).min(4);
    let mut best: Option<(usize, bool, &'a str)> = None;
    let mut letters = Vec::new();
    let mut rows = Rows::default();
    for candidate in candidates {
        if !may_compare(1) {
            return None;
        }
        if candidate == word || candidate.len() > 4 * (LONGEST_WORD + bound) {
            continue;
        }
        letters.clear();
        letters.extend(normalised(candidate));
        let longest = letters.len().max(wanted.len());
        if letters.len().abs_diff(wanted.len()) > bound {
            continue;
        }
        let reach = best.map_or(bound, |(distance, _, _)| distance);
        let Some(distance) = rows.distance(&wanted, &letters, reach) else { continue };
        // When nothing of the word is left, the other name has nothing to do with it.
        if distance >= longest {
            continue;
        }
        let other_start = letters.first() != wanted.first();
        if best.is_none_or(|(best_distance, best_start, _)| (distance, other_start) < (best_distance, best_start)) {
            best = Some((distance, other_start, candidate));
        }
    }
    best.map(|(_, _, candidate)| candidate)
}

/// The characters of a word as they are compared.
fn normalised(word: &str) -> impl Iterator<Item = char> {
    word.chars().flat_map(char::to_lowercase).map(|c| if c == '-' { '_' } else { c })
}

/// Three rows of the table of distances, kept between candidates.
#[derive(Default)]
struct Rows {
    before: Vec<usize>,
    last: Vec<usize>,
    now: Vec<usize>,
}

impl Rows {
    /// The optimal string alignment distance, or nothing if it is above `bound`. Only the band of the table within
    /// `bound` of the diagonal is filled, so the work grows with length times bound.
    fn distance(&mut self, left: &[char], right: &[char], bound: usize) -> Option<usize> {
        let width = right.len() + 1;
        let far = bound + 1;
        self.before.clear();
        self.before.resize(width, far);
        self.last.clear();
        self.last.extend((0..width).map(|column| column.min(far)));
        for (row, left_char) in left.iter().enumerate() {
            self.now.clear();
            self.now.resize(width, far);
            let from = row.saturating_sub(bound);
            let to = (row + bound + 1).min(right.len());
            let mut smallest = far;
            if from == 0 {
                self.set(0, (row + 1).min(far), &mut smallest);
            }
            for (column, right_char) in right.iter().enumerate().take(to).skip(from) {
                let replaced = at(&self.last, column, far) + usize::from(left_char != right_char);
                let left_out = at(&self.last, column + 1, far) + 1;
                let inserted = at(&self.now, column, far) + 1;
                let mut cost = replaced.min(left_out).min(inserted);
                let swapped = row > 0
                    && column > 0
                    && left.get(row - 1) == Some(right_char)
                    && right.get(column - 1) == Some(left_char);
                if swapped {
                    cost = cost.min(at(&self.before, column - 1, far) + 1);
                }
                self.set(column + 1, cost.min(far), &mut smallest);
            }
            if smallest > bound {
                return None;
            }
            std::mem::swap(&mut self.before, &mut self.last);
            std::mem::swap(&mut self.last, &mut self.now);
        }
        let distance = at(&self.last, right.len(), far);
        (distance <= bound).then_some(distance)
    }

    /// Writes a cell of the current row and keeps the row's smallest value.
    fn set(&mut self, column: usize, cost: usize, smallest: &mut usize) {
        if let Some(cell) = self.now.get_mut(column) {
            *cell = cost;
        }
        *smallest = (*smallest).min(cost);
    }
}

/// A cell of a row; outside the row everything is too far.
fn at(row: &[usize], column: usize, far: usize) -> usize {
    row.get(column).copied().unwrap_or(far)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    fn check(word: &str, candidates: &[&str], expect: Option<&str>) {
        assert_eq!(nearest(word, candidates.iter().copied()), expect, "for `{word}` among {candidates:?}");
    }

    #[test]
    fn finds_the_usual_mistakes() {
        check("anser", &["question", "answer", "and"], Some("answer"));
        check("dept", &["question", "depth"], Some("depth"));
        check("reflection", &["planner", "reflexion"], Some("reflexion"));
        check("serch", &["fetch", "search"], Some("search"));
        check("buld", &["build", "test"], Some("build"));
        check("tst", &["build", "test"], Some("test"));
        check("evidnce", &["sources", "evidence"], Some("evidence"));
        check("naem", &["id", "name"], Some("name"));
        check("quesion", &["question"], Some("question"));
    }

    #[test]
    fn looks_at_a_bounded_number_of_candidates() {
        super::renew_comparisons();
        check("anser", &["answer"], Some("answer"));
        assert!(!super::may_compare(super::MOST_COMPARED), "one has been looked at");
        check("anser", &["answer"], None);
        super::renew_comparisons();
        check("anser", &["answer"], Some("answer"));
    }

    #[test]
    fn takes_case_and_dashes_for_the_same() {
        check("my-step", &["other", "my_step"], Some("my_step"));
        check("MaxParallel", &["max_parallel"], Some("max_parallel"));
        check("ANSWER", &["answers", "answer"], Some("answer"));
    }

    #[test]
    fn prefers_the_nearer_then_the_same_start_then_the_first() {
        check("steps", &["step", "steqz"], Some("step"));
        check("cat", &["bat", "car", "can"], Some("car"));
    }

    #[test]
    fn says_nothing_about_strangers() {
        check("x", &["y", "zebra"], None);
        check("x", &["xs"], Some("xs"));
        check("agent", &["url", "method", "headers"], None);
        check("", &["a"], None);
        check("a", &["a"], None);
        check(&"long".repeat(1000), &["long"], None);
    }

    #[test]
    fn agrees_with_the_full_table() {
        let words = ["", "a", "ab", "ba", "abc", "acb", "abcd", "bacd", "dcba", "answer", "anwser", "naswer", "ansr"];
        for left in words {
            for right in words {
                let (a, b): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
                let full = full_distance(&a, &b);
                for bound in 0..6 {
                    let banded = super::Rows::default().distance(&a, &b, bound);
                    assert_eq!(banded, (full <= bound).then_some(full), "`{left}` `{right}` within {bound}");
                }
            }
        }
    }

    fn full_distance(a: &[char], b: &[char]) -> usize {
        let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
        for i in 0..=a.len() {
            for j in 0..=b.len() {
                if i == 0 || j == 0 {
                    table[i][j] = i + j;
                    continue;
                }
                let replaced = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                table[i][j] = replaced.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    table[i][j] = table[i][j].min(table[i - 2][j - 2] + 1);
                }
            }
        }
        table[a.len()][b.len()]
    }
}
