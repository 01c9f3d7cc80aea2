//! Paths within the project: joined as text, confined to the root, with `/` between parts.

/// The folder of a file; empty for a file at the root.
pub fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The path that `relative` means in `folder`, without `.` and `..`; `None` if it leaves the project.
pub fn join(folder: &str, relative: &str) -> Option<String> {
    if relative.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            _ => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A folder and all that it lies in, the nearest first, the root (empty) last.
pub fn upwards(folder: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(folder), |folder| (!folder.is_empty()).then(|| folder_of(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_joined_and_confined() {
        let check = |folder, relative, expect: Option<&str>| {
            assert_eq!(join(folder, relative).as_deref(), expect, "{folder} + {relative}");
        };
        check("", "a.yaml", Some("a.yaml"));
        check("x/y", "../a.yaml", Some("x/a.yaml"));
        check("x", "./b//a.yaml", Some("x/b/a.yaml"));
        check("x", "../../a.yaml", None);
        check("", "../a.yaml", None);
        check("x", "/etc/passwd", None);
        check("x", "..", Some(""));
    }

    #[test]
    fn folders_go_up_to_the_root() {
        assert_eq!(upwards("a/b").collect::<Vec<_>>(), ["a/b", "a", ""]);
        assert_eq!(upwards("").collect::<Vec<_>>(), [""]);
        assert_eq!(folder_of("a/b/c.yaml"), "a/b");
    }
}
