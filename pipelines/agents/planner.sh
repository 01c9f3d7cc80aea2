# A local agent that plans, by rules: it shows how `plan` works without a key or a network.
# stdin: one request (docs/exit-codes.md); stdout: one answer. For each longer word of the goal it plans one call of the
# tool `search`, as many as `max_steps` allows, and at last one of `gather` over all that was found.
set -eu

here=$(dirname "$0")
request=$(mktemp)
trap 'rm -f "$request"' EXIT
cat > "$request"

awk -f "$here/json.awk" "$request" | awk -F '\t' -v words_read="$(wc -w < "$request")" '
  $1 == "/input/goal" { goal = tolower($2) }
  $1 == "/input/max_steps" && $2 ~ /^[0-9]+$/ { most = $2 }
  END {
    if (!most) most = 8
    gsub(/\\[a-z"\\\/]/, " ", goal)
    gsub(/[^a-z]+/, " ", goal)
    words = split(goal, word, " ")
    for (at = 1; at <= words && steps + 1 < most; at++) {
      if (length(word[at]) < 5 || word[at] in seen) continue
      seen[word[at]] = 1
      steps++
      plan = plan sprintf("{\"id\":\"E%d\",\"thought\":\"what is said of %s\",\"tool\":\"search\",\"input\":{\"word\":\"%s\"}},",
                          steps, word[at], word[at])
      found = found (steps > 1 ? "\\n" : "") "#E" steps
    }
    plan = plan sprintf("{\"id\":\"E%d\",\"thought\":\"all of it together\",\"tool\":\"gather\",\"input\":{\"text\":\"%s\"}}",
                        steps + 1, found)
    printf "{\"version\":1,\"output\":{\"steps\":[%s]},\"usage\":{\"input_tokens\":%d,\"output_tokens\":%d}}\n",
           plan, words_read, 12 * (steps + 1)
  }
'
