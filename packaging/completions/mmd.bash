# Completion of mmd in bash. What there is to choose from mmd says itself; where it cannot, it says nothing here.

_mmd() {
    local answers kind value
    # Not by assignments before the command: COMP_WORDS is an array, and those are not handed on.
    answers=$(
        env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD="$COMP_CWORD" _MMD_COMPLETE=bash_complete "$1" 2>/dev/null
    )
    COMPREPLY=()
    while IFS=, read -r kind value; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            file) compopt -o filenames && mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$2") ;;
        esac
    done <<<"$answers"
}

complete -o nosort -F _mmd mmd
