//! Figures in the text format of Prometheus, version 0.0.4.

use std::fmt::Write as _;

/// A page of figures. A figure's samples stand together, so that a scraper takes them for one.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// A number that only grows, such as `tol_leases_lost_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.figure(name, "counter", help, &[(&[], value as f64)]);
    }

    /// A number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.figure(name, "gauge", help, &[(&[], value)]);
    }

    /// A figure with a sample for each set of labels.
    pub fn figure(&mut self, name: &str, kind: &str, help: &str, samples: &[(&[(&str, &str)], f64)]) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing into a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            self.0.push_str(name);
            for (number, (label, text)) in labels.iter().enumerate() {
                let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(self.0, "{}{label}=\"{text}\"", if number == 0 { '{' } else { ',' });
            }
            let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
        }
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_a_scraper_reads() {
        let mut page = Exposition::new();
        page.counter("tol_a_total", "All a.", 3);
        page.figure("tol_b", "gauge", "Some b.", &[(&[("queue", "g\"pu"), ("worker", "w")], 0.5), (&[], 2.0)]);
        let expected = "# HELP tol_a_total All a.\n# TYPE tol_a_total counter\ntol_a_total 3\n\
                        # HELP tol_b Some b.\n# TYPE tol_b gauge\ntol_b{queue=\"g\\\"pu\",worker=\"w\"} 0.5\ntol_b 2\n";
        assert_eq!(page.into_text(), expected);
    }
}
