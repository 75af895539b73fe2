# SPDX-License-Identifier: Apache-2.0 OR MIT
#
# For scripts/coverage: the files of other machines, what lcov found, then the sources.

function is_test_file(name) {
    return name ~ /(^|\/)(tests|testing)(\.rs|\/)/
}

FNR == 1 {
    nth++
    in_tests = 0
}

nth == 1 {
    name = $1
    sub(/^[^ ]* /, "")
    elsewhere[name] = $0
    next
}

nth == 2 {
    if (/^SF:/) {
        file = substr($0, 4)
        file = index(file, here) == 1 ? substr(file, length(here) + 1) : "elsewhere"
        seen[file] = 1
    } else if (/^DA:/) {
        split(substr($0, 4), line, ",")
        hits[file, line[1]] = line[2]
    }
    next
}

FNR == 1 {
    file = FILENAME
    sub(/^engine\/src\//, "", file)
    files[++count] = file
    pending = 0
}

is_test_file(file) { next }

# Unit tests stand at the end of a file.
/^#\[cfg\((all\()?test/ { in_tests = 1 }

in_tests { next }

(file, FNR) in hits {
    lines[file]++
    reached[file] += hits[file, FNR] > 0
    if (pending) {
        note(hits[file, FNR] > 0)
    }
}

# Counts are of statements: a block that begins a statement has its count on the next lines.
function note(is_reached) {
    pending = 0
    blocks[file]++
    if (!is_reached && !known(file, pending_text)) {
        cold[++colds] = file ":" pending_line
    }
}

# True if the list names a block of this file by something that stands in its line.
function known(name, text,    key) {
    for (key in elsewhere) {
        if (index(key, name ":") == 1 && index(text, substr(key, length(name) + 2))) {
            return named[key] = 1
        }
    }
    return 0
}

/unsafe \{/ && !/^ *\/\// {
    if (pending) {
        note(0)
    }
    pending_line = FNR
    pending_text = $0
    if ((file, FNR) in hits) {
        note(hits[file, FNR] > 0)
    } else {
        pending = 1
    }
}

END {
    for (i = 1; i <= count; i++) {
        file = files[i]
        if (file in elsewhere) {
            named[file] = 1
            if (lines[file] && 100 * reached[file] >= least * lines[file]) {
                printf "engine/src/%s is reached here: take it from the list\n", file
                failed = 1
            }
            continue
        }
        all += lines[file]
        all_reached += reached[file]
        if (lines[file]) {
            percent = 100 * reached[file] / lines[file]
            printf "%6.1f %%  %5d of %5d  %s\n", percent, reached[file], lines[file], file
        }
        unsafe_blocks += blocks[file]
    }
    for (file in elsewhere) {
        if (!(file in named)) {
            printf "engine/src/%s is in the list, and not there or reached here\n", file
            failed = 1
        }
    }
    for (i = 1; i <= colds; i++) {
        split(cold[i], place, ":")
        if (!(place[1] in elsewhere)) {
            printf "unsafe, and not reached: engine/src/%s\n", cold[i]
            failed = 1
        }
    }
    if (!all) {
        print "nothing was counted"
        exit 1
    }
    percent = 100 * all_reached / all
    printf "%6.1f %%  %5d of %5d  all; least: %d %%\n", percent, all_reached, all, least
    printf "%d unsafe blocks of these files\n", unsafe_blocks
    exit failed || percent < least
}
