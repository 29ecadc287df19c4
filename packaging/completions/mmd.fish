# Completion of mmd in fish. What there is to choose from mmd says itself; where it cannot, it says nothing here.

function __mmd_choices
    set -lx COMP_WORDS (commandline --current-process --cut-at-cursor | string collect)
    set -lx COMP_CWORD (commandline --current-token --cut-at-cursor)
    set -lx _MMD_COMPLETE fish_complete
    for answer in (command mmd 2>/dev/null)
        # Once: a description may have commas of its own.
        set -l parts (string split --max 1 , -- $answer)
        switch $parts[1]
            case plain
                echo $parts[2]
            case file
                # As an argument of no command in particular; __fish_complete_path knows no ~.
                complete --do-complete "'' "(commandline --current-token --cut-at-cursor)
        end
    end
end

complete --command mmd --no-files --keep-order --arguments '(__mmd_choices)'
