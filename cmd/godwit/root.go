package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2 // the command line itself is wrong
)

// run is the whole program: it does what args say until ctx ends and gives the
// exit code. Results go to stdout; an error is one line on stderr that reads
// "godwit: what, where: what to do".
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, "godwit: "+strings.Join(strings.Fields(err.Error()), " "))
	var u *usageError
	if errors.As(err, &u) {
		return exitUsage
	}
	return exitError
}

// A usageError is a wrong command line.
type usageError struct{ err config.Error }

// Error is like that of config.Error.
func (e *usageError) Error() string { return e.err.Error() }

// usage makes an error about the command line of cmd.
func usage(cmd *cobra.Command, what, do string) error {
	return &usageError{config.Error{What: what, Where: cmd.CommandPath(), Do: do}}
}

// seeHelp is what to do when nothing better can be said.
func seeHelp(cmd *cobra.Command) string { return "see " + cmd.CommandPath() + " --help" }

func newRoot() *cobra.Command {
	root := group("godwit", "Keeps your connections in the air while your machine moves between networks",
		newServer(), newClient(), newStatus(), newDoctor(), newConfig(), newCheck(), newDemo(), newMan(), newVersion())
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetHelpCommand(&cobra.Command{Hidden: true})
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(cmd, "wrong flag: "+err.Error(), seeHelp(cmd))
	})
	return root
}

// group makes a command that only has subcommands.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.ArbitraryArgs, // an unknown command gets our own error
		RunE: func(cmd *cobra.Command, args []string) error {
			names := make([]string, 0, len(commands))
			for _, c := range commands {
				names = append(names, c.Name())
			}
			do := "use one of " + strings.Join(names, ", ")
			if len(args) == 0 {
				return usage(cmd, "no command is given", do)
			}
			if s := config.Suggest(args[0], names); s != "" {
				do = "did you mean " + s + "?"
			}
			return usage(cmd, "unknown command "+strconv.Quote(args[0]), do)
		},
	}
	cmd.DisableFlagsInUseLine = true
	cmd.AddCommand(commands...)
	return cmd
}

// takes makes a check that a command has exactly these arguments.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usage(cmd, names[len(args)]+" is missing", "run "+cmd.CommandPath()+" "+strings.Join(names, " "))
		case len(args) > len(names):
			return usage(cmd, "unexpected argument "+strconv.Quote(args[len(names)]), seeHelp(cmd))
		}
		return nil
	}
}

// dirFlag adds --dir to a command of a role, "server" or "client", and gives
// what reads it: the flag, the environment, or the default.
func dirFlag(cmd *cobra.Command, role string) func() (string, error) {
	dir := cmd.Flags().String("dir", "", "folder with the "+role+"'s files (default $"+config.DirVariable(role)+" or ~/.config/godwit/"+role+")")
	return func() (string, error) {
		if *dir != "" {
			return *dir, nil
		}
		if cmd.Flags().Changed("dir") {
			return "", usage(cmd, "--dir is empty", "name a folder")
		}
		if path := os.Getenv(config.DirVariable(role)); path != "" {
			return path, nil
		}
		return config.DefaultDir(role)
	}
}

// logFlag adds --log-level and gives what makes the logger; fallback is the
// level without the flag.
func logFlag(cmd *cobra.Command) func(fallback slog.Level) (*slog.Logger, error) {
	level := cmd.Flags().String("log-level", "", "debug, info, warn or error")
	return func(l slog.Level) (*slog.Logger, error) {
		if *level != "" {
			var err error
			if l, err = config.ParseLevel(*level); err != nil {
				return nil, usage(cmd, "wrong --log-level: "+err.Error(), "use debug, info, warn or error")
			}
		}
		return newLogger(cmd, l), nil
	}
}

// newLogger writes what is of level or above to standard error.
func newLogger(cmd *cobra.Command, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
}

// parseListen reads the value of a --listen flag.
func parseListen(cmd *cobra.Command, s, example string) (netip.AddrPort, error) {
	if strings.HasPrefix(s, ":") {
		s = "[::]" + s
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return ap, usage(cmd, "wrong --listen: "+strconv.Quote(s)+" is not an address and a port", "write it as "+example)
	}
	return ap, nil
}
