package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/config"
)

func newStatus() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the running client is connected and how it moved",
		Args:  takes(),
	}
	dir := dirFlag(cmd, "client")
	asJSON := cmd.Flags().Bool("json", false, "as JSON, for programs")
	watch := cmd.Flags().Bool("watch", false, "show it again each second, until interrupted")
	show := func(cmd *cobra.Command, path string) error {
		body, err := askControl(cmd.Context(), filepath.Join(path, controlSocket), "GET", "/status")
		if err != nil {
			return notRunning(path, err)
		}
		if *asJSON {
			_, err := cmd.OutOrStdout().Write(body)
			return err
		}
		var s client.Status
		if err := json.Unmarshal(body, &s); err != nil {
			return &config.Error{What: "the client's answer is not a status: " + lastCause(err), Where: path, Do: "use the same version of godwit for both", Err: err}
		}
		return printStatus(cmd.OutOrStdout(), s)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path, err := dir()
		if err != nil {
			return err
		}
		if !*watch {
			return show(cmd, path)
		}
		return repeat(cmd, func() error { return show(cmd, path) })
	}
	return cmd
}

// refresh is how often a watched status is shown.
const refresh = time.Second

// repeat shows something each second until the command's context ends. On a
// terminal each time takes the place of the one before.
func repeat(cmd *cobra.Command, show func() error) error {
	every := time.NewTicker(refresh)
	defer every.Stop()
	terminal := isTerminal(cmd.OutOrStdout())
	for {
		if terminal {
			fmt.Fprint(cmd.OutOrStdout(), "\x1b[H\x1b[2J") // home, and clear
		}
		if err := show(); err != nil && cmd.Context().Err() == nil {
			return err
		}
		select {
		case <-every.C:
		case <-cmd.Context().Done():
			return nil
		}
	}
}

// packetSize writes the size of a packet in bytes.
func packetSize(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// printStatus writes a status for people.
func printStatus(out io.Writer, s client.Status) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "state\t%s\n", s.State)
	fmt.Fprintf(w, "server\t%s\n", s.Server)
	if len(s.Inner) > 0 {
		fmt.Fprintf(w, "inner\t%s\n", strings.Join(s.Inner, ", "))
	}
	if s.KeyExchange != "" {
		fmt.Fprintf(w, "keys\t%s\n", s.KeyExchange)
	}
	if p := s.Path; p != nil {
		fmt.Fprintf(w, "path\t%s, %s to %s\n", p.Encapsulation, p.Local, p.Remote)
		if d := p.Down; d != nil {
			fmt.Fprintf(w, "path back\t%s, %s to %s; nothing passes both ways\n", d.Encapsulation, d.Remote, d.Local)
		}
		if p.Proxy != "" {
			fmt.Fprintf(w, "proxy\t%s\n", p.Proxy)
		}
		fmt.Fprintf(w, "round trip\t%s\n", milliseconds(p.RTTms))
		fmt.Fprintf(w, "translation\t%s\n", orDash(p.Verdict))
		if p.MTUOut > 0 || p.MTUIn > 0 {
			fmt.Fprintf(w, "path MTU\t%s out, %s in\n", packetSize(p.MTUOut), packetSize(p.MTUIn))
		}
	}
	if s.Forced != "" {
		fmt.Fprintf(w, "forced\t%s\n", forced(s))
	}
	if p := s.Standby; p != nil {
		fmt.Fprintf(w, "standby\t%s, %s to %s\n", p.Encapsulation, p.Local, p.Remote)
	}
	if m := s.Machine; m != nil {
		fmt.Fprintf(w, "machine\t%s\n", machineLine(*m))
	}
	fmt.Fprintf(w, "sent\t%s in %d packets\n", byteCount(s.BytesSent), s.PacketsSent)
	fmt.Fprintf(w, "received\t%s in %d packets\n", byteCount(s.BytesReceived), s.PacketsReceived)
	if p := s.Portal; p != nil {
		fmt.Fprintf(w, "portal\t%s\n", p.Evidence)
		if p.URL != "" {
			fmt.Fprintf(w, "page\t%s\n", p.URL)
		}
	}
	if s.LastError != "" {
		fmt.Fprintf(w, "trouble\t%s\n", s.LastError)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(s.Registrations) == 0 {
		return nil
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MOVE\tTRIGGER\tSELECTED\tVERDICT\tREVISION\tTOOK\tGAP OUT/IN\tSENT AGAIN\tCOPIES")
	for _, r := range s.Registrations {
		took := "waiting"
		if r.Done {
			took = milliseconds(r.DurationMs)
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%s\t%s / %s\t%s\t%s\n", r.Number, r.Trigger, selected(r), orDash(r.Verdict), r.Revision, took,
			gap(r.GapOutMs), gap(r.GapInMs), byteCount(r.ResentBytes), copies(r.Copies))
	}
	return w.Flush()
}

// selected tells by what data goes, and by what it comes if that is another.
func selected(r client.Registration) string {
	if r.Down != "" {
		return r.Selected + " / " + r.Down
	}
	return orDash(r.Selected)
}

// forced tells what is forced, and whether it works.
func forced(s client.Status) string {
	if s.Path != nil && s.Path.Encapsulation == s.Forced {
		return s.Forced
	}
	return s.Forced + ", by which nothing has answered yet; godwit client force auto lets go"
}

// copies tells what became of the copies of one registration.
func copies(cs []client.Copy) string {
	parts := make([]string, 0, len(cs))
	for _, c := range cs {
		part := fmt.Sprintf("%s sent %d", c.Encapsulation, c.Sent)
		switch {
		case c.Answered:
			part += ", answered in " + milliseconds(c.RTTms)
		case c.Heard || c.Arrived || c.Came:
			_, what := oneWay(c)
			part += ", " + what
		case c.Error != "":
			part += ", " + c.Error
		default:
			part += ", no answer"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}

// gap is a pause in the data; an idle link has none.
func gap(ms float64) string {
	if ms == 0 {
		return "-"
	}
	return milliseconds(ms)
}

func milliseconds(ms float64) string { return strconv.FormatFloat(ms, 'f', 1, 64) + " ms" }

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// byteCount gives a number of bytes in the unit that suits it.
func byteCount(n uint64) string {
	if n < 1000 {
		return strconv.FormatUint(n, 10) + " B"
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"kB", "MB", "GB", "TB", "PB", "EB"} {
		if f /= 1000; f < 999.95 {
			break
		}
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + unit
}
