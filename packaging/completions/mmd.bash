# Completion of mmd in bash. mmd itself prints the choices; if it cannot, there are none.

_mmd() {
    local answers kind value
    # env, not assignments before the command: COMP_WORDS is an array, which bash does not export.
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
