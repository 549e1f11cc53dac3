package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/client/machine"
	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/mobility/pathmtu"
	"github.com/godwit-net/godwit/transports"
)

const (
	connectPatience  = 12 * time.Second // until a link is up, over anything
	registerPatience = 6 * time.Second  // until a registration has settled
)

// A diagnosis is what doctor found; its JSON names are an interface.
type diagnosis struct {
	Server  string `json:"server"`
	Running bool   `json:"running"` // a client runs here, and was asked
	Ways    []way  `json:"encapsulations"`
	direct
	// Portal tells of somebody who answers in the server's place.
	Portal *client.PortalStatus `json:"portal,omitempty"`
	// Machine tells how the whole machine is led through the tunnel, where it is.
	Machine *machine.Status `json:"machine,omitempty"`
	// Left says that a client was killed and what it had changed of the machine is
	// still there.
	Left bool   `json:"left_over,omitempty"`
	Use  string `json:"use"` // the encapsulation that godwit takes here; empty: none
	// Down is the one by which the server's data comes, where no encapsulation passes
	// both ways and Use passes up alone.
	Down    string `json:"down,omitempty"`
	Because string `json:"because"`
}

// A way is one encapsulation.
type way struct {
	Encapsulation string  `json:"encapsulation"`
	Passes        bool    `json:"passes"`
	Failed        string  `json:"failed,omitempty"` // the step: resolve, route, connect, tls, upgrade, request, registration, full size
	Detail        string  `json:"detail,omitempty"`
	RTTms         float64 `json:"rtt_ms,omitempty"`
	Translation   string  `json:"translation,omitempty"`
	Size          int     `json:"size,omitempty"` // of the largest IP packet that was seen to pass, in bytes; the path may take larger ones
}

func newDoctor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what the network here does to godwit",
		Long: `Tries every encapsulation that client.toml names against the server and says which
pass, where the others fail, and what godwit will use here. It works beside a
running client, which then registers anew over everything. The exit code is 0 if
something passes.`,
		Args: takes(),
	}
	dir := dirFlag(cmd, "client")
	asJSON := cmd.Flags().Bool("json", false, "as JSON, for programs")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := loadClient(dir)
		if err != nil {
			return err
		}
		if d.Config.Gateway != nil {
			return &config.Error{What: "the server of this client is not godwit", Where: d.Path(), Do: "use godwit status"}
		}
		found, err := diagnose(cmd.Context(), d)
		if err != nil {
			return err
		}
		if *asJSON {
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			err = e.Encode(found)
		} else {
			err = found.print(cmd.OutOrStdout())
		}
		if err == nil && found.Use == "" {
			err = &config.Error{What: "nothing passes", Where: d.Config.Server, Do: "see what failed above; another network may be kinder"}
		}
		return err
	}
	return cmd
}

// diagnose asks the running client, or runs one for as long as it takes.
func diagnose(ctx context.Context, d *config.ClientDir) (*diagnosis, error) {
	found := &diagnosis{Server: d.Config.Server}
	proxied, err := upstreamProxy(d, os.Getenv)
	if err != nil {
		return nil, err
	}
	probed := make(chan direct, 1)
	go func() { probed <- probeDirect(ctx, d, proxied != nil) }()
	status, err := registrationOf(ctx, d, found)
	found.direct = <-probed
	if err != nil {
		return nil, err
	}
	found.judge(d.Config.Encapsulations, status)
	found.Machine = status.Machine
	if left, err := machine.ReadState(machineState(d)); err == nil && left != nil {
		found.Left = !found.Running
	}
	return found, nil
}

// registrationOf gives the status right after a registration over everything.
func registrationOf(ctx context.Context, d *config.ClientDir, found *diagnosis) (client.Status, error) {
	socket := filepath.Join(d.Path(), controlSocket)
	ask := func(ctx context.Context) (s client.Status, err error) {
		body, err := askControl(ctx, socket, "GET", "/status")
		if err == nil {
			err = json.Unmarshal(body, &s)
		}
		return s, err
	}
	before, err := ask(ctx)
	switch {
	case err == nil:
		found.Running = true
		if _, err := askControl(ctx, socket, "POST", "/move"); err != nil {
			return before, &config.Error{What: "the running client does not answer: " + lastCause(err), Where: d.Path(), Do: "start it again with godwit client run", Err: err}
		}
		return settled(ctx, lastNumber(before), registerPatience, ask)
	case !errors.Is(err, errNotRunning):
		return before, &config.Error{What: "the running client does not answer: " + lastCause(err), Where: d.Path(), Do: "start it again with godwit client run", Err: err}
	}

	cc, err := clientConfig(d, d.Config.Encapsulations, slog.New(slog.DiscardHandler))
	if err != nil {
		return before, err
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := watchNetwork(ctx, &cc, cc.Logger)
	defer stop()
	outsideOf(d).lead(&cc) // a client may have been killed that had closed the machine
	defer cancel()
	c, err := client.New(cc)
	if err != nil {
		return before, err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	select {
	case <-c.Ready():
		s, err := settled(ctx, 0, registerPatience, func(context.Context) (client.Status, error) { return c.Status(), nil })
		cancel()
		<-ended
		return s, err
	case err := <-ended:
		return before, clientEnded(err, d.Config.Server)
	case <-time.After(connectPatience):
		s := c.Status()
		cancel()
		<-ended
		return s, nil
	}
}

func lastNumber(s client.Status) uint32 {
	if n := len(s.Registrations); n > 0 {
		return s.Registrations[n-1].Number
	}
	return 0
}

// settled waits for a registration after number to end, but not for ever.
func settled(ctx context.Context, number uint32, patience time.Duration, ask func(context.Context) (client.Status, error)) (client.Status, error) {
	deadline := time.After(patience)
	for {
		s, err := ask(ctx)
		if err != nil {
			return s, err
		}
		if n := len(s.Registrations); n > 0 && s.Registrations[n-1].Number > number {
			last := s.Registrations[n-1]
			if last.Done || !slices.ContainsFunc(last.Copies, func(c client.Copy) bool { return !c.Answered }) {
				return s, nil
			}
		}
		select {
		case <-deadline:
			return s, nil
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// judge makes the table of what was seen.
func (f *diagnosis) judge(names []string, s client.Status) {
	f.Portal = s.Portal
	copies := map[string]client.Copy{}
	if n := len(s.Registrations); n > 0 {
		for _, c := range s.Registrations[n-1].Copies {
			copies[c.Encapsulation] = c
		}
	}
	for _, name := range names {
		w := way{Encapsulation: name}
		c, tried := copies[name]
		switch {
		case c.Answered:
			w.Passes, w.RTTms, w.Translation = true, c.RTTms, c.Verdict
			if transports.Name(name).Datagrams() {
				w.Size = fullPacket(name, c.Remote)
				if p := s.Path; p != nil && p.Encapsulation == name {
					w.Size = max(w.Size, p.MTUOut)
				}
			}
		case name == string(transports.ESP) && (s.Path == nil || s.Path.Encapsulation != name):
			w.Detail = "not tried: it is probed later, where no translation is found"
		case name == string(transports.ESP):
			w.Passes, w.RTTms, w.Translation = true, s.Path.RTTms, s.Path.Verdict
		default:
			w.Failed, w.Detail = f.step(name, c)
			if !tried && w.Detail == "" {
				w.Detail = "no answer to the key exchange"
			}
		}
		f.Ways = append(f.Ways, w)
		if w.Passes && f.Use == "" {
			f.Use = name
			f.Because = "it is the first in this client's order of preference that passes"
		}
	}
	if s.Path != nil && s.Path.Encapsulation == string(transports.ESP) {
		f.Use, f.Because = s.Path.Encapsulation, "nothing translates addresses on the way and its probe has passed"
	}
	if p := s.Path; f.Use == "" && p != nil && p.Down != nil {
		f.Use, f.Down, f.Because = p.Encapsulation, p.Down.Encapsulation, "no encapsulation passes both ways, and these pass one each"
	}
	if f.Use == "" {
		f.Because = cmp.Or(s.LastError, "no encapsulation passes")
	}
}

// step tells where an encapsulation failed.
func (f *diagnosis) step(name string, c client.Copy) (step, detail string) {
	stream := !transports.Name(name).Datagrams()
	switch {
	case f.ResolveError != "":
		return "resolve", f.ResolveError
	case f.RouteError != "":
		return "route", f.RouteError
	case c.Heard || c.Arrived || c.Came:
		return oneWay(c)
	case stream && f.ConnectError != "":
		return "connect", f.ConnectError
	case name == string(transports.WebSocket) && f.TLSError != "":
		return "tls", f.TLSError
	case name == string(transports.HTTP) && c.Error == "" && f.Portal != nil:
		return "request", f.Portal.Evidence
	case name == string(transports.HTTP) && c.Error != "":
		return "request", strings.Join(strings.Fields(c.Error), " ")
	case name == string(transports.WebSocket) && c.Error != "":
		return "upgrade", strings.Join(strings.Fields(c.Error), " ")
	}
	return "registration", strings.Join(strings.Fields(c.Error), " ")
}

// oneWay tells which direction fails of an encapsulation that does something.
func oneWay(c client.Copy) (step, detail string) {
	switch {
	case c.Came && !c.Arrived:
		return "way there", "the server does not hear it, and its packets come back"
	case c.Came:
		return "full size", "small packets pass, and those of full size come from the server alone"
	case !c.Heard && c.ArrivedFull:
		return "way back", "the server hears it, and none of its answers comes back"
	case !c.Heard:
		return "way back", "the server hears small packets, and none of its answers comes back"
	case c.ArrivedFull:
		return "full size", "small packets pass, and those of full size pass to the server alone"
	}
	return "full size", "small packets pass and those of full size do not"
}

// fullPacket is the size of the IP packet that a padded copy filled.
func fullPacket(name, remote string) int {
	size := paddedPacket
	if transports.Name(name).Base() == transports.UDP {
		size += 8
	}
	if strings.HasPrefix(remote, "[") {
		return size + 40
	}
	return size + 20
}

// paddedPacket is the size of a padded registration as an ESP packet, in bytes.
const paddedPacket = pathmtu.BaseSize

func (f *diagnosis) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ENCAPSULATION\tPASSES\tROUND TRIP\tTRANSLATION\tREMARKS")
	for _, x := range f.Ways {
		passes, rtt, remark := "no", "", x.Detail
		switch {
		case x.Passes:
			passes, rtt = "yes", fmt.Sprintf("%.1f ms", x.RTTms)
			if x.Size > 0 {
				remark = fmt.Sprintf("IP packets of %d bytes pass", x.Size)
			}
		case x.Failed == "":
			passes = "?"
		default:
			remark = strings.TrimSuffix("fails at: "+x.Failed+", "+x.Detail, ", ")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", x.Encapsulation, passes, rtt, x.Translation, remark)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if f.Machine != nil {
		fmt.Fprintln(w, "This machine "+machineLine(*f.Machine)+".")
	}
	if f.Left {
		fmt.Fprintln(w, "A client was killed that had led this machine through its tunnel: run godwit client cleanup, or start it again.")
	}
	if p := f.Portal; p != nil {
		look := "Open any page in a browser"
		if p.URL != "" {
			look = "Open " + p.URL + " in a browser"
		}
		fmt.Fprintf(w, "Somebody else answers in the server's place. %s; godwit goes on by itself when this network opens.\n", look)
	}
	for _, line := range f.remarks() {
		fmt.Fprintln(w, line)
	}
	verdict := "godwit can use nothing here: " + f.Because
	if f.Use != "" {
		use := f.Use
		if f.Down != "" {
			use += " to the server and " + f.Down + " back"
		}
		verdict = "godwit will use " + use + " here: " + f.Because
	}
	_, err := fmt.Fprintln(w, strings.Join(strings.Fields(verdict), " "))
	return err
}
