# Reads one JSON text and prints a line `path<TAB>value` for each leaf: /input/draft/text<TAB>…
# Strings are printed without their quotes and with their escapes as they stand, so a leaf is one line
# and can be put into JSON again as it is. With -v quiet=1 it prints nothing and only checks.
# A text that is not JSON ends it with a message and exit code 1.

function fail(what) {
  printf "line %d: %s\n", NR, what > "/dev/stderr"
  failed = 1
  exit 1
}

function place(    level, text) {
  for (level = 1; level <= depth; level++) text = text "/" (kind[level] == "{" ? key[level] : index_of[level])
  return text
}

function leaf(value) {
  if (!quiet) print place() "\t" value
  want = depth ? "next" : "end"
}

function open(mark) {
  depth++
  kind[depth] = mark
  index_of[depth] = 0
  want = mark == "{" ? "key or end" : "value or end"
}

function close_with(mark) {
  if (!depth || kind[depth] != mark) fail("nothing to close here")
  depth--
  want = depth ? "next" : "end"
}

function take(token, first) {
  if (want == "end") fail("more after the end: " token)
  if (first == "}" && (want == "next" || want == "key or end")) return close_with("{")
  if (first == "]" && (want == "next" || want == "value or end")) return close_with("[")
  if (want == "key" || want == "key or end") {
    if (first != "\"") fail("a key should stand here, not " token)
    key[depth] = substr(token, 2, length(token) - 2)
    want = "colon"
  } else if (want == "colon") {
    if (first != ":") fail("a colon should stand here, not " token)
    want = "value"
  } else if (want == "next") {
    if (first != ",") fail("a comma or an end should stand here, not " token)
    index_of[depth]++
    want = kind[depth] == "{" ? "key" : "value"
  } else if (first == "{" || first == "[") open(first)
  else if (index("]},:", first)) fail("a value should stand here, not " token)
  else if (first == "\"") leaf(substr(token, 2, length(token) - 2))
  else leaf(token)
}

BEGIN { want = "value" }

{
  rest = $0
  while (sub(/^[ \t\r]+/, "", rest) || rest != "") {
    if (rest == "") break
    if (!match(rest, /^"([^"\\]|\\.)*"/) &&
        !match(rest, /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?/) &&
        !match(rest, /^(true|false|null)/) &&
        !match(rest, /^[][{},:]/)) fail("not JSON: " substr(rest, 1, 20))
    take(substr(rest, 1, RLENGTH), substr(rest, 1, 1))
    rest = substr(rest, RLENGTH + 1)
  }
}

END {
  if (!failed && want != "end") fail("it ends too early")
}
