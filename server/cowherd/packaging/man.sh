#!/usr/bin/env bash
# Writes manual pages of what the programs print for --help.
#
#   man.sh BIN_DIR OUT_DIR [DATE]
#
# BIN_DIR holds cowherd and cowherd-bench; OUT_DIR gets cowherd.1 and cowherd-bench.1.
set -euo pipefail

BIN=$1
OUT=$2
DATE=${3:-}
# Width of the help of cowherd-bench: that of a terminal, less the indentation of a manual page.
export COLUMNS=72

VERSION=$("$BIN/cowherd" --version)
VERSION=${VERSION#cowherd }

# Escapes text for roff: backslashes, hyphens that a reader copies, control characters at line start.
escape() { sed -e 's/\\/\\e/g' -e 's/-/\\-/g' -e "s/^\([.']\)/\\\\\&\1/"; }

# Prints the head of a page, up to its description.
head_of() {
    local name=$1 summary=$2
    printf '.TH %s 1 "%s" "Cowherd %s" "Cowherd"\n' "${name^^}" "$DATE" "$VERSION"
    printf '.SH NAME\n%s \\- %s\n' "$(escape <<<"$name")" "$summary"
}

# Turns the server's help into sections: a line "Title:" opens one. Under Directives, a line
# "  --name shape" is a tagged paragraph and the indented lines below are its text; everywhere else
# indented lines stay as they are.
sections() {
    escape | awk '
        function close_block() { if (verbatim) { print ".fi"; verbatim = 0 } }
        NR == 1 { next }
        /^[A-Z][a-z]+:$/ {
            close_block()
            title = toupper(substr($0, 1, length($0) - 1))
            if (title == "USAGE") title = "SYNOPSIS"
            print ".SH " title
            in_description = 0
            next
        }
        /^$/ { close_block(); blank = 1; next }
        title == "DIRECTIVES" && /^  \\-\\-/ {
            split(substr($0, 3), words, " ")
            print ".TP"
            print "\\fB" words[1] "\\fR" substr($0, 3 + length(words[1]))
            blank = 0
            next
        }
        title == "DIRECTIVES" { sub(/^ +/, ""); print; next }
        /^ / {
            if (!verbatim) { print ".nf"; verbatim = 1 }
            sub(/^  /, "")
            print
            next
        }
        {
            close_block()
            if (!in_description) { print ".SH DESCRIPTION"; in_description = 1 }
            else if (blank) print ".PP"
            blank = 0
            print
        }
        END { close_block() }'
}

mkdir -p "$OUT"

{
    head_of cowherd "Redis\\-compatible, checkpointing in\\-memory key\\-value server"
    "$BIN/cowherd" --help | sections
    cat <<'ROFF'
.SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
Cancel a running checkpoint, write a final one if save points are set, and exit. If the final
checkpoint fails, the server goes on serving. A second signal, two seconds later or more, ends the
server at once.
.SH EXIT STATUS
0 after a regular end; 1 after an error, which is printed to standard error.
.SH FILES
.TP
.I /etc/cowherd/cowherd.conf
Configuration of the packaged service: every directive with its default and an explanation.
.TP
.I /var/lib/cowherd/dump.cow
Image of the packaged service.
.SH SEE ALSO
.BR cowherd\-bench (1),
.BR redis\-cli (1),
.I /usr/share/doc/cowherd/docs/operations.md
ROFF
} >"$OUT/cowherd.1"

# The help of clap, as it is.
verbatim() {
    printf '.nf\n'
    escape
    printf '.fi\n'
}

{
    head_of cowherd-bench "measure copy\\-on\\-write and checkpoints"
    printf '.SH DESCRIPTION\n'
    "$BIN/cowherd-bench" --help | verbatim
    for command in pages snapshot; do
        printf '.SH %s\n' "${command^^}"
        "$BIN/cowherd-bench" "$command" --help | verbatim
    done
    printf '.SH SEE ALSO\n.BR cowherd (1)\n'
} >"$OUT/cowherd-bench.1"
