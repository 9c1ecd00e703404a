# A linear model: the words of a text vote for languages, by the weights in the first file. Writes
# {"language": L, "share": S, "words": N} to `output`, where S is the language's share of all votes.

FNR == NR {
    # WORD LANGUAGE WEIGHT, separated by tabs
    if ($0 !~ /^#/ && NF == 3) {
        weight[$1, $2] = $3
        votes[$2] = 0
    }
    next
}

{
    text = tolower($0)
    # Letters beyond ASCII are bytes above 127 here, and belong to words.
    gsub(/[^a-z\200-\377]+/, " ", text)
    count = split(text, word, " ")
    for (i = 1; i <= count; i++) {
        words++
        for (language in votes) {
            if ((word[i], language) in weight) votes[language] += weight[word[i], language]
        }
    }
}

END {
    best = "unknown"
    most = all = 0
    for (language in votes) {
        all += votes[language]
        if (votes[language] > most) {
            most = votes[language]
            best = language
        }
    }
    share = all > 0 ? most / all : 0
    printf "{\"language\": \"%s\", \"share\": %.2f, \"words\": %d}\n", best, share, words > output
}
