package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints a script made from the command line's own model, so it cannot fall behind.
func (c *completionCmd) Run(e *env) error {
	lines := words(e.model.Node, "")
	switch c.Shell {
	case "fish":
		fmt.Fprintln(e.stdout, "# watchword completion fish | source")
		for _, l := range lines {
			seen := "__fish_use_subcommand"
			if l.path != "" {
				seen = "__fish_seen_subcommand_from " + l.path[strings.LastIndexByte(l.path, ' ')+1:]
			}
			for _, w := range l.words {
				if flag, is := strings.CutPrefix(w.name, "--"); is {
					fmt.Fprintf(e.stdout, "complete -c watchword -n %s -l %s -d %s\n", quoted(seen), flag, quoted(w.help))
				} else {
					fmt.Fprintf(e.stdout, "complete -c watchword -f -n %s -a %s -d %s\n", quoted(seen), w.name, quoted(w.help))
				}
			}
		}
		return nil
	case "zsh":
		fmt.Fprintln(e.stdout, "#compdef watchword\nautoload -U +X bashcompinit && bashcompinit")
	}
	fmt.Fprint(e.stdout, `# source <(watchword completion `+c.Shell+`)
_watchword() {
  local cur=${COMP_WORDS[COMP_CWORD]} path= word i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${COMP_WORDS[i]}
    case $word in -*) ;; *) path="${path:+$path }$word" ;; esac
  done
  local words
  case $path in
`)
	for _, l := range lines {
		if l.path == "" {
			continue
		}
		var names []string
		for _, w := range l.words {
			names = append(names, w.name)
		}
		fmt.Fprintf(e.stdout, "    %s) words=%s ;;\n", quoted(l.path)+"*", quoted(strings.Join(names, " ")))
	}
	var top []string
	for _, w := range lines[len(lines)-1].words {
		top = append(top, w.name)
	}
	fmt.Fprintf(e.stdout, `    *) words=%s ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  [[ ${#COMPREPLY[@]} -gt 0 ]] || COMPREPLY=($(compgen -f -- "$cur"))
}
complete -F _watchword watchword
`, quoted(strings.Join(top, " ")))
	return nil
}

type word struct{ name, help string }

// line is what may follow one command.
type line struct {
	path  string
	words []word
}

// words lists the commands below n, deepest first, with what may follow each.
func words(n *kong.Node, path string) (all []line) {
	var here line
	here.path = path
	for _, child := range n.Children {
		if child.Hidden {
			continue
		}
		all = append(all, words(child, strings.TrimSpace(path+" "+child.Name))...)
		here.words = append(here.words, word{child.Name, child.Help})
	}
	for _, f := range n.Flags {
		here.words = append(here.words, word{"--" + f.Name, f.Help})
	}
	for _, p := range n.Positional {
		for _, v := range strings.Split(p.Enum, ",") {
			if v != "" {
				here.words = append(here.words, word{v, ""})
			}
		}
	}
	return append(all, here)
}

// quoted is s as one word of a shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
