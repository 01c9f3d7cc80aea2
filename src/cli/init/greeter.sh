#!/bin/sh
# A stand-in for a model: takes the name out of `"prompt":"Greet NAME."` and prints an answer.
name=$(tr -d '\n' | sed -n 's/.*"prompt": *"Greet \([^"]*\)\.".*/\1/p')
echo "Hello, ${name:-stranger}!"
