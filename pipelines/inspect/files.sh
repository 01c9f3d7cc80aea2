# Lists the files of the checkout, a line each: its kind (the ending of its name), a tab, its path.
# With an argument: the files of that kind only. Runs in the root of the checkout, with git or without.
set -eu

names() {
  if git -c core.quotePath=false ls-files 2> /dev/null | grep .; then return; fi
  find . -type d \( -name .git -o -name .tol -o -name 'target*' \) -prune -o -type f -print | sed 's|^\./||' | sort
}

names | while IFS= read -r file; do
  [ -f "$file" ] || continue
  kind=other
  case "${file##*/}" in ?*.?*) kind=${file##*.} ;; esac
  case "$kind" in *[!A-Za-z0-9]*) kind=other ;; esac
  [ "$kind" = "${1:-$kind}" ] || continue
  printf '%s\t%s\n' "$kind" "$file"
done
