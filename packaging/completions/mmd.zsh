#compdef mmd
# Completion of mmd in zsh. mmd itself prints the choices; if it cannot, there are none.

_mmd() {
    local -a answers plain described
    local kind value help
    answers=("${(@f)$(
        COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) _MMD_COMPLETE=zsh_complete command $words[1] 2>/dev/null
    )}")
    for kind value help in "${answers[@]}"; do
        case $kind/$help in
            plain/_) plain+=("$value") ;;
            plain/*) described+=("$value:$help") ;;
            file/*) _files ;;
        esac
    done
    # -V keeps mmd's order, which is by frequency of use.
    (( $#described )) && _describe -V mmd described
    (( $#plain )) && compadd -V mmd -a plain
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _mmd "$@"
else
    compdef _mmd mmd
fi
