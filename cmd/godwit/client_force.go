package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/config"
)

const (
	// anyEncapsulation lets go of one that was forced.
	anyEncapsulation = "auto"
	// forceWait is how long the command waits for an answer by what it forced.
	forceWait = 5 * time.Second
	forceLook = 100 * time.Millisecond
)

func newClientForce() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "force ENCAPSULATION",
		Short: "Have the running client use one encapsulation alone, or any again",
		Long: "Have the running client use one encapsulation alone: one of those in client.toml, such as udp, tcp or websocket. " +
			"While nothing answers by it streams wait. It holds until the client ends, or until godwit client force auto; " +
			"what a client uses at all is the key encapsulations in client.toml.",
		Example: "  godwit client force tcp\n  godwit client force auto",
		Args:    takes("ENCAPSULATION"),
	}
	dir := dirFlag(cmd, "client")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path, err := dir()
		if err != nil {
			return err
		}
		return force(cmd, path, args[0])
	}
	return cmd
}

func force(cmd *cobra.Command, path, name string) error {
	socket := filepath.Join(path, controlSocket)
	s, err := askStatus(cmd.Context(), socket)
	if err != nil {
		return notRunning(path, err)
	}
	if name != anyEncapsulation && !slices.Contains(s.Encapsulations, name) {
		return &config.Error{What: "the client has no encapsulation " + name, Where: path,
			Do: "name one of " + strings.Join(append(s.Encapsulations, anyEncapsulation), ", ")}
	}
	to := name
	if name == anyEncapsulation {
		to = ""
	}
	if _, err := askControl(cmd.Context(), socket, "POST", "/force?"+url.Values{"to": {to}}.Encode()); err != nil {
		return notRunning(path, err)
	}
	if to == "" {
		fmt.Fprintln(cmd.OutOrStdout(), "any encapsulation may be used again")
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), forceWait)
	defer cancel()
	for {
		if s, err = askStatus(cmd.Context(), socket); err != nil {
			return notRunning(path, err)
		}
		if s.State == "connected" && s.Path != nil && s.Path.Encapsulation == name {
			fmt.Fprintf(cmd.OutOrStdout(), "all data goes by %s now, from %s to %s\n", name, s.Path.Local, s.Path.Remote)
			return nil
		}
		select {
		case <-time.After(forceLook):
		case <-ctx.Done():
			return &config.Error{What: "nothing answers by " + name + " yet: streams wait", Where: s.Server, Do: "let go with godwit client force auto"}
		}
	}
}

// askStatus gives the status of the client that answers at socket.
func askStatus(ctx context.Context, socket string) (s client.Status, err error) {
	body, err := askControl(ctx, socket, "GET", "/status")
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// notRunning says what to do about a client that does not answer.
func notRunning(path string, err error) error {
	if errors.Is(err, errNotRunning) {
		// A folder that is not set up needs another remedy.
		if _, err := loadClient(func() (string, error) { return path, nil }); err != nil {
			return err
		}
		return &config.Error{What: "no client is running", Where: path, Do: "start it with godwit client run, or name its folder with --dir", Err: err}
	}
	return &config.Error{What: "the client does not answer: " + lastCause(err), Where: path, Do: "start it again with godwit client run", Err: err}
}
