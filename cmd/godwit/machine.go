package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/client/machine"
	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/mobility/netwatch"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/system"
)

// machineFile is the file in a client's folder that says what has been changed of
// the machine, while it is.
const machineFile = "machine.json"

func machineState(d *config.ClientDir) string { return filepath.Join(d.Path(), machineFile) }

// An outside is the machine's own network, while the machine as a whole goes
// through the tunnel.
type outside struct {
	mark     netwatch.Mark
	resolver *net.Resolver
}

// outsideOf gives the one for a client. Where the machine is led nowhere,
// or where this process may not leave by another way than others, it is all there
// is.
func outsideOf(d *config.ClientDir) outside {
	const mark = netwatch.Mark(machine.Mark)
	if d.Config.Tun.Enabled || machine.Led() {
		if _, err := mark.LocalAddress(netip.AddrFrom4([4]byte{127, 0, 0, 1})); err == nil {
			return outside{mark, machine.OutsideResolver(mark.Control)}
		}
	}
	return outside{resolver: net.DefaultResolver}
}

// checkTun tells whether this client can lead a machine at all.
func checkTun(d *config.ClientDir) error {
	if d.Config.Tun.Enabled && d.Config.Gateway != nil {
		return &config.Error{What: "only a godwit server can take a whole machine's traffic", Where: d.Where("tun"), Do: "run without tun, and use the proxy"}
	}
	return nil
}

func (o outside) network(more ...system.Option) transports.Network {
	if o.mark != 0 {
		more = append(more, system.Marked(uint32(o.mark)))
	}
	return system.New(more...)
}

// lookup resolves a name there.
func (o outside) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	return o.resolver.LookupNetIP(ctx, "ip", host)
}

// way gives the first of some addresses that packets have a route to, and the address
// that they would leave from.
func (o outside) way(to []netip.Addr) (local, remote netip.Addr, err error) {
	err = errors.New("no address")
	for _, remote = range to {
		remote = remote.Unmap()
		if local, err = o.mark.LocalAddress(remote); err == nil {
			break
		}
	}
	return local, remote, err
}

// lead has the sockets of c leave there, and names be asked for there. It comes
// after watchNetwork.
func (o outside) lead(c *client.Config) {
	if o.mark == 0 {
		return
	}
	c.Network = o.network()
	c.LocalAddress, c.Attachment = o.mark.LocalAddress, o.mark.AttachmentTo
	c.Interfaces = func(remote netip.Addr) []netwatch.Attachment {
		return slices.DeleteFunc(o.mark.Attachments(remote), func(a netwatch.Attachment) bool {
			return a.Source == machine.Near4 || a.Source == machine.Near6
		})
	}
	c.Through = func(iface string) transports.Network { return o.network(system.Through(iface)) }
	c.Resolve = o.lookup
}

// A taken is the machine as it is led through the tunnel; nil if it is not.
type taken struct{ *machine.Machine }

// openMachine prepares to lead the machine through the tunnel if the settings say
// so. What a client has left that was killed is put back otherwise.
func openMachine(d *config.ClientDir, c *client.Client, logger *slog.Logger) (*taken, error) {
	t := d.Config.Tun
	if err := checkTun(d); err != nil {
		return nil, err
	}
	left, err := machine.ReadState(machineState(d))
	if err != nil {
		return nil, machineError(d, err)
	}
	if left != nil && !(t.Enabled && t.KillSwitch && left.KillSwitch) {
		if _, err := machine.Cleanup(machineState(d), logger); err != nil {
			return nil, machineError(d, err)
		}
		logger.LogAttrs(context.Background(), slog.LevelInfo, "put back what the last run had changed of the machine's network")
	}
	if !t.Enabled {
		return nil, nil
	}
	m, err := machine.New(machine.Config{
		Settings: machine.Settings{
			Device: t.Device, MTU: t.MTU, Include: t.Include, Exclude: t.Exclude,
			NoLAN: t.NoLAN, NoDNS: t.NoDNS, Resolver: t.Resolver, KillSwitch: t.KillSwitch,
		},
		File: machineState(d), Dial: c.Dial, Associate: c.Associate, Gateway: c.Gateway, Logger: logger,
	})
	if err != nil {
		return nil, machineError(d, err)
	}
	if t.KillSwitch {
		if err := m.Take(); err != nil {
			return nil, machineError(d, errors.Join(err, m.Close(true)))
		}
	}
	return &taken{m}, nil
}

// take leads the machine through the tunnel, if that is wanted.
func (t *taken) take(d *config.ClientDir) error {
	if t == nil {
		return nil
	}
	if err := t.Take(); err != nil {
		return machineError(d, err)
	}
	return nil
}

// failed tells of a device that ended by itself.
func (t *taken) failed() <-chan error {
	if t == nil {
		return nil
	}
	return t.Failed()
}

// close puts the machine back; failed is how the client ended.
func (t *taken) close(d *config.ClientDir, failed error) error {
	if t == nil {
		return failed
	}
	if err := t.Close(failed != nil); err != nil && failed == nil {
		return machineError(d, err)
	}
	return failed
}

// status adds what is done with the machine to a status.
func (t *taken) status(of func() client.Status) func() client.Status {
	if t == nil {
		return of
	}
	return func() client.Status {
		s := of()
		m := t.Status()
		s.Machine = &m
		return s
	}
}

// A wholeClient is a client and what is done with the machine, for the status page.
type wholeClient struct {
	*client.Client
	of func() client.Status
}

// Status tells of both.
func (w wholeClient) Status() client.Status { return w.of() }

// machineError says what to do about an error of package machine.
func machineError(d *config.ClientDir, err error) error {
	e := &config.Error{What: "cannot lead the whole machine through the tunnel: " + err.Error(), Where: d.Where("tun"), Do: "mend that, or run without tun", Err: err}
	switch {
	case errors.Is(err, machine.ErrUnsupported):
		e.What, e.Do = err.Error(), "run without tun, and use the proxy"
	case errors.Is(err, machine.ErrNotPermitted):
		e.Do = "run as root, or without tun"
	}
	return e
}

func newClientCleanup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Put back what a client with --tun changed of the machine and could not restore",
		Long: `Restores routes, rules and name servers after a client that led the whole machine
through its tunnel was killed. What somebody else has changed since stays. It
does nothing where there is nothing to restore.`,
		Example: "  sudo godwit client cleanup",
		Args:    takes(),
	}
	dir := dirFlag(cmd, "client")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := loadClient(dir)
		if err != nil {
			return err
		}
		if err := checkNotRunning(cmd.Context(), "client", filepath.Join(d.Path(), controlSocket)); err != nil {
			return err
		}
		did, err := machine.Cleanup(machineState(d), newLogger(cmd, d.Config.LogLevel))
		if err != nil {
			return machineError(d, err)
		}
		say := "nothing to restore"
		if did {
			say = "restored the machine's routes and names"
		}
		cmd.Println(say)
		return nil
	}
	return cmd
}

// machineLine tells people what is done with the machine.
func machineLine(m machine.Status) string {
	line := "goes through the tunnel whole, by " + m.Device
	switch {
	case !m.Taken:
		line = "goes its own way until there is a tunnel"
	case m.LAN:
		line += "; local networks directly"
	}
	switch m.DNS {
	case "off":
	case "server":
		line += "; names by the server"
	default:
		line += "; names by " + m.DNS
	}
	if m.KillSwitch {
		line += "; kill switch"
	}
	return line
}
