package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/server"
)

func newServerStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show who is connected to the running server, by what, and how clients moved",
		Example: "  godwit server status\n  godwit server status --json",
		Args:    takes(),
	}
	dir := dirFlag(cmd, "server")
	asJSON := cmd.Flags().Bool("json", false, "as JSON, for programs")
	watch := cmd.Flags().Bool("watch", false, "show it again each second, until interrupted")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path, err := dir()
		if err != nil {
			return err
		}
		show := func() error {
			body, err := askControl(cmd.Context(), filepath.Join(path, controlSocket), "GET", "/status")
			switch {
			case errors.Is(err, errNotRunning):
				// A folder that is not set up needs another remedy.
				if _, err := loadServer(dir); err != nil {
					return err
				}
				return &config.Error{What: "no server is running", Where: path, Do: "start it with godwit server run, or name its folder with --dir", Err: err}
			case err != nil:
				return &config.Error{What: "the server does not answer: " + lastCause(err), Where: path, Do: "start it again with godwit server run", Err: err}
			}
			if *asJSON {
				_, err := cmd.OutOrStdout().Write(body)
				return err
			}
			var s server.Status
			if err := json.Unmarshal(body, &s); err != nil {
				return &config.Error{What: "the server's answer is not a status: " + lastCause(err), Where: path, Do: "use the same version of godwit for both", Err: err}
			}
			return printServerStatus(cmd.OutOrStdout(), s)
		}
		if !*watch {
			return show()
		}
		return repeat(cmd, show)
	}
	return cmd
}

// shownMoves is how many registrations are printed, the last ones.
const shownMoves = 20

// printServerStatus writes a server's status for people.
func printServerStatus(out io.Writer, s server.Status) error {
	t := s.Totals
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "clients\t%d connected, %d remembered\n", t.Connected, t.Remembered)
	fmt.Fprintf(w, "sent\t%s in %d packets\n", byteCount(t.BytesSent), t.PacketsSent)
	fmt.Fprintf(w, "received\t%s in %d packets\n", byteCount(t.BytesReceived), t.PacketsReceived)
	fmt.Fprintf(w, "sent again\t%s in %d packets\n", byteCount(t.BytesResent), t.PacketsResent)
	d := t.Drops
	fmt.Fprintf(w, "dropped\t%d of no client, %d replayed, %d damaged, %d spoofed, %d too big, %d as a queue was full\n",
		d.UnknownSA, d.Replayed, d.Damaged, d.Spoofed, d.TooBig, d.QueueFull)
	if len(s.Clients) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(w, "CLIENT\tSTATE\tBY\tFROM\tVERDICT\tSENT\tRECEIVED\tKEYS")
	}
	for _, c := range s.Clients {
		state := "remembered"
		if c.Connected {
			state = "connected"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Name, state, by(c.Encapsulation, c.Up), orDash(c.Remote), orDash(c.Verdict),
			byteCount(c.BytesSent), byteCount(c.BytesReceived), orDash(c.KeyExchange))
	}
	moves := s.Registrations[max(0, len(s.Registrations)-shownMoves):]
	if len(moves) > 0 {
		fmt.Fprintln(w)
		fmt.Fprintln(w, "MOVE\tTIME\tTRIGGER\tBY\tVERDICT\tGAP OUT/IN\tSENT AGAIN")
	}
	for _, r := range moves {
		fmt.Fprintf(w, "%s %d\t%s\t%s\t%s\t%s\t%s / %s\t%s\n", r.Client, r.Number, r.Started.Local().Format(time.DateTime), orDash(r.Trigger),
			by(r.Encapsulation, r.Up), orDash(r.Verdict), gap(r.GapOutMs), gap(r.GapInMs), byteCount(r.ResentBytes))
	}
	return w.Flush()
}

// by tells by what data leaves, and by what the client's comes if that is another.
func by(down, up string) string {
	if up != "" {
		return down + ", from it " + up
	}
	return orDash(down)
}
