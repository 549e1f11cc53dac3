package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/config"
)

// maxLinkInput bounds what is read for a link from standard input, in bytes.
const maxLinkInput = 8192

func newClientJoin() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "join LINK",
		Short: "Set up a client from a link",
		Long: `Sets up a client from the godwit://… link that "godwit server invite" printed, and
tries at once whether the server is reached, and by which encapsulations.
With - in the place of LINK it is read from standard input, so that other users
of this machine cannot see it among the running programs.

A link that the server refuses leaves nothing behind. When the server is merely
out of reach, the client is set up and the exit code is 1.`,
		Args: takes("LINK"),
	}
	dir := dirFlag(cmd, "client")
	offline := cmd.Flags().Bool("offline", false, "do not try whether the server is reached")
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
		var found *diagnosis
		if !*offline {
			if found, err = tryServer(cmd.Context(), d); err != nil {
				return err
			}
		}
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "joined %s as %s, set up in %s\n", l.Endpoint, l.Name, d.Path())
		if found != nil {
			if err := found.print(out); err != nil {
				return err
			}
			if found.Use == "" {
				return &config.Error{What: "set up, but the server is not reached", Where: l.Endpoint,
					Do: "see that it runs, that its port is open for TCP and UDP, and that the name is right; godwit client run keeps trying, godwit doctor tries again"}
			}
		}
		fmt.Fprintln(out, "next: godwit client run")
		return nil
	}
	return cmd
}

// tryServer finds out by which encapsulations the server is reached. If it
// refuses this client, what joining has made is removed again.
func tryServer(ctx context.Context, joined *config.ClientDir) (*diagnosis, error) {
	d, err := loadClient(func() (string, error) { return joined.Path(), nil })
	if err != nil {
		return nil, err
	}
	found, err := diagnose(ctx, d)
	var refused *client.RefusedError
	if errors.As(err, &refused) {
		return nil, errors.Join(err, joined.Leave())
	}
	return found, err
}
