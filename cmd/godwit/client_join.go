package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
)

// maxLinkInput bounds what is read for a link from standard input, in bytes.
const maxLinkInput = 8192

func newClientJoin() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "join LINK",
		Short: "Set up a client from a link",
		Long: `Sets up a client from the godwit://… link that "godwit server invite" printed.
With - in the place of LINK it is read from standard input, so that other users
of this machine cannot see it among the running programs.`,
		Args: takes("LINK"),
	}
	dir := dirFlag(cmd, "client")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text := args[0]
		if text == "-" {
			b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxLinkInput))
			if err != nil {
				return &config.Error{What: "cannot read the link: " + lastCause(err), Where: "standard input", Do: "give the link as an argument", Err: err}
			}
			text = string(b)
		}
		l, err := config.ParseLink(text, time.Now())
		if err != nil {
			return err
		}
		path, err := dir()
		if err != nil {
			return err
		}
		d, err := config.JoinClient(path, l)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "joined %s as %s, set up in %s\nnext: godwit client run\n", l.Endpoint, l.Name, d.Path())
		return nil
	}
	return cmd
}
