//! What a scalar's text means by the core schema of YAML 1.2: null, boolean, integer, float or string.

use super::Yaml;

/// A core tag that was written out, such as `!!str`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CoreTag {
    Null,
    Bool,
    Int,
    Float,
    Str,
    List,
    Map,
}

impl CoreTag {
    /// The tag that a name stands for: `str` is the one of `!!str`.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "null" => Some(Self::Null),
            "bool" => Some(Self::Bool),
            "int" => Some(Self::Int),
            "float" => Some(Self::Float),
            "str" => Some(Self::Str),
            "seq" => Some(Self::List),
            "map" => Some(Self::Map),
            _ => None,
        }
    }

    /// How a message calls a value of this tag.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Int => "an integer",
            Self::Float => "a number",
            Self::Str => "a string",
            Self::List => "a list",
            Self::Map => "a mapping",
        }
    }

    /// What a scalar's text is when it carries this tag; nothing if it cannot be that.
    pub(super) fn read(self, text: &str) -> Option<Yaml> {
        match self {
            Self::Str => Some(Yaml::String(text.into())),
            Self::Null => is_null(text).then_some(Yaml::Null),
            Self::Bool => boolean(text).map(Yaml::Bool),
            Self::Int => integer(text).filter(|value| matches!(value, Yaml::Int(_))),
            Self::Float => match integer(text) {
                Some(Yaml::Int(value)) => decimal(&value.to_string()).map(Yaml::Float),
                Some(other) => Some(other),
                None => float(text).map(Yaml::Float),
            },
            Self::List | Self::Map => None,
        }
    }
}

/// What a plain scalar means.
pub(super) fn plain(text: &str) -> Yaml {
    // Most scalars begin with a letter that no special word begins with, so they are done here.
    let special = text.bytes().next().is_none_or(|first| matches!(first, b'0'..=b'9' | b'+' | b'-' | b'.' | b'~'))
        || matches!(text.len(), 4 | 5);
    if !special {
        return Yaml::String(text.into());
    }
    if is_null(text) {
        return Yaml::Null;
    }
    if let Some(value) = boolean(text) {
        return Yaml::Bool(value);
    }
    integer(text).or_else(|| float(text).map(Yaml::Float)).unwrap_or_else(|| Yaml::String(text.into()))
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// An integer in decimal, octal (`0o17`) or hexadecimal (`0x1F`); one that 64 bits cannot hold is a float.
fn integer(text: &str) -> Option<Yaml> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
                return None;
            }
            return Some(
                i64::from_str_radix(digits, radix).map_or_else(|_| Yaml::Float(large(digits, radix)), Yaml::Int),
            );
        }
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().map(Yaml::Int).ok().or_else(|| decimal(text).map(Yaml::Float))
}

/// The nearest float to a number of many digits.
fn large(digits: &str, radix: u32) -> f64 {
    digits.chars().filter_map(|c| c.to_digit(radix)).fold(0.0, |sum, digit| sum * f64::from(radix) + f64::from(digit))
}

fn float(text: &str) -> Option<f64> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return Some(if negative { f64::NEG_INFINITY } else { f64::INFINITY }),
        ".nan" | ".NaN" | ".NAN" => return (unsigned.len() == text.len()).then_some(f64::NAN),
        _ => {}
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let valid = digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|part| !part.is_empty() && digits(part));
    if valid { decimal(text) } else { None }
}

fn decimal(text: &str) -> Option<f64> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{CoreTag, plain};
    use crate::yaml::Yaml;

    fn check(text: &str, expect: &Yaml) {
        assert_eq!(&plain(text), expect, "for `{text}`");
    }

    #[test]
    fn reads_the_core_schema() {
        for text in ["", "~", "null", "Null", "NULL"] {
            check(text, &Yaml::Null);
        }
        for text in ["true", "True", "TRUE"] {
            check(text, &Yaml::Bool(true));
        }
        for text in ["false", "False", "FALSE"] {
            check(text, &Yaml::Bool(false));
        }
        let integers = [("0", 0), ("014", 14), ("+12", 12), ("-3", -3), ("0x1F", 31), ("0xff", 255), ("0o17", 15)];
        for (text, value) in integers {
            check(text, &Yaml::Int(value));
        }
        check("9223372036854775807", &Yaml::Int(i64::MAX));
        check("-9223372036854775808", &Yaml::Int(i64::MIN));
        check("9223372036854775808", &Yaml::Float(9_223_372_036_854_775_808.0));
        check("0xFFFFFFFFFFFFFFFF", &Yaml::Float(18_446_744_073_709_551_615.0));
        let floats = [(".5", 0.5), ("1e3", 1000.0), ("1.", 1.0), ("-1.5E-2", -0.015), ("+.25", 0.25), ("1e+2", 100.0)];
        for (text, value) in floats {
            check(text, &Yaml::Float(value));
        }
        check(".inf", &Yaml::Float(f64::INFINITY));
        check("-.Inf", &Yaml::Float(f64::NEG_INFINITY));
        assert!(matches!(plain(".NaN"), Yaml::Float(value) if value.is_nan()));
    }

    #[test]
    fn leaves_everything_else_a_string() {
        let strings = [
            "yes",
            "no",
            "on",
            "off",
            "y",
            "n",
            "1:30",
            "2026-11-20",
            "200_000",
            "0b1",
            "0x",
            "0o8",
            "+0x1",
            "1e",
            "e3",
            ".",
            "+",
            "-",
            "1.2.3",
            "tRUE",
            "nuLL",
            "inf",
            "nan",
            ".infinity",
            "-.nan",
            "1 2",
            "truth",
            "½",
        ];
        for text in strings {
            check(text, &Yaml::String(text.into()));
        }
    }

    #[test]
    fn honours_written_tags() {
        assert_eq!(CoreTag::Str.read("12"), Some(Yaml::String("12".into())));
        assert_eq!(CoreTag::Int.read("12"), Some(Yaml::Int(12)));
        assert_eq!(CoreTag::Int.read("1.5"), None);
        assert_eq!(CoreTag::Float.read("3"), Some(Yaml::Float(3.0)));
        assert_eq!(CoreTag::Bool.read("yes"), None);
        assert_eq!(CoreTag::Null.read("~"), Some(Yaml::Null));
    }
}
