# A local agent that writes and criticises, by rules: it shows how `synthesize` works without a key or a network.
# stdin: one request (docs/exit-codes.md); stdout: one answer. It writes Markdown with a section for each piece of evidence;
# as a critic it asks for a section `Sources` and for every piece of evidence to be named.
set -eu

here=$(dirname "$0")
request=$(mktemp)
trap 'rm -f "$request"' EXIT
cat > "$request"

awk -f "$here/json.awk" "$request" | awk -F '\t' -v words_read="$(wc -w < "$request")" '
  # Values come with their JSON escapes, and go into JSON again as they are; "\\n" is a new line of the answer.
  function line(text) { answer = answer text "\\n" }

  function piece_of(path) { split(path, parts, "/"); return parts[4] }

  function row(piece, number,    at, cells) {
    for (at = 1; at <= columns[piece]; at++) cells = cells " " value_of[piece, number, column[piece, at]] " |"
    line("|" cells)
  }

  function section(piece,    at, heads, rules) {
    line("")
    line("## " piece)
    line("")
    if (!rows[piece]) {
      for (at = 1; at <= facts[piece]; at++) line("- " fact[piece, at])
      return
    }
    for (at = 1; at <= columns[piece]; at++) {
      heads = heads " " column[piece, at] " |"
      rules = rules "---|"
    }
    line("|" heads)
    line("|" rules)
    for (at = 0; at < rows[piece]; at++) row(piece, at)
  }

  $1 == "/phase" { phase = $2 }
  $1 == "/agent" { agent = $2 }
  $1 == "/prompt" && !prompt { prompt = $2 }
  $1 == "/input/draft/text" { draft = $2 }
  $1 == "/input/verify/status" { verdict = $2 }
  $1 ~ /^\/input\/critiques\/[0-9]+\/id$/ { asked_for[$2] = 1 }

  $1 ~ /^\/input\/evidence\/[^\/]+\// {
    piece = piece_of($1)
    if (!(piece in known)) { known[piece] = 1; order[++pieces] = piece }
    depth = split($1, parts, "/")
    text = $2
    gsub(/\\n/, " ", text)
    # A list of objects becomes a table; anything else a list of facts.
    if (depth == 6 && parts[5] ~ /^[0-9]+$/) {
      if (!((piece, parts[6]) in has)) { has[piece, parts[6]] = 1; column[piece, ++columns[piece]] = parts[6] }
      value_of[piece, parts[5], parts[6]] = text
      rows[piece] = parts[5] + 1
    } else {
      name = substr($1, length("/input/evidence/" piece "/") + 1)
      sub(/\/text$/, "", name)
      fact[piece, ++facts[piece]] = (name == "text" ? "" : name ": ") text
    }
  }

  END {
    usage = sprintf("\"usage\":{\"input_tokens\":%d,\"output_tokens\":", words_read)
    if (phase == "critique") {
      faults = 0
      if (!index(draft, "## Sources")) {
        faults++
        list = "{\"id\":\"sources\",\"severity\":\"major\",\"message\":\"say in a section Sources what this rests on\"}"
      }
      for (at = 1; at <= pieces; at++) if (!index(draft, "## " order[at])) {
        list = list (faults++ ? "," : "") "{\"id\":\"" order[at] "\",\"severity\":\"major\",\"message\":\"nothing is said of it\"}"
      }
      score = 1 - faults * 0.4
      if (score < 0) score = 0
      printf "{\"version\":1,\"output\":{\"score\":%.1f,\"accepted\":%s,\"critiques\":[%s]},%s%d}}\n",
             score, faults ? "false" : "true", list, usage, 10 + 10 * faults
      exit
    }
    line("# Report")
    line("")
    sub(/\\n.*/, "", prompt)
    line("_" prompt "_")
    for (at = 1; at <= pieces; at++) section(order[at])
    if ("sources" in asked_for) {
      line("")
      line("## Sources")
      line("")
      for (at = 1; at <= pieces; at++) line("- the step `" order[at] "`")
      if (verdict != "") line("- checked: " verdict)
    }
    printf "{\"version\":1,\"text\":\"%s\",%s%d}}\n", answer, usage, length(answer) / 5
  }
'
