# Completion of mmd in fish. mmd itself prints the choices; if it cannot, there are none.

function __mmd_choices
    set -lx COMP_WORDS (commandline --current-process --cut-at-cursor | string collect)
    set -lx COMP_CWORD (commandline --current-token --cut-at-cursor)
    set -lx _MMD_COMPLETE fish_complete
    for answer in (command mmd 2>/dev/null)
        # Split once: a description may contain commas.
        set -l parts (string split --max 1 , -- $answer)
        switch $parts[1]
            case plain
                echo $parts[2]
            case file
                # Complete as an argument of no particular command: __fish_complete_path does not expand ~.
                complete --do-complete "'' "(commandline --current-token --cut-at-cursor)
        end
    end
end

complete --command mmd --no-files --keep-order --arguments '(__mmd_choices)'
