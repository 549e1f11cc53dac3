package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/client/front"
	"github.com/godwit-net/godwit/client/statuspage"
	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/server"
	"github.com/godwit-net/godwit/server/egress"
)

// The demo's site is known by this name at the server only, and by this
// address (of RFC 5737, which nobody has).
const demoHost = "site.demo"

var demoAddr = netip.MustParseAddr("192.0.2.80")

// moveTimeout is how long the demo waits for a move to end.
const moveTimeout = 10 * time.Second

func newDemo() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Try it out: server, client and a small web site in this process",
		Long: `Runs a server, a client and a small web site in this one process, on loopback
and with throwaway keys, and prints what to try. It moves each time Enter is
pressed, and goes on until it is interrupted.`,
		Args: takes(),
	}
	log := logFlag(cmd)
	listen := cmd.Flags().String("listen", "127.0.0.1:0", "ADDR:PORT of the proxy; port 0 stands for any free one")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		logger, err := log(slog.LevelWarn)
		if err != nil {
			return err
		}
		at, err := parseListen(cmd, *listen, "127.0.0.1:0")
		if err != nil {
			return err
		}
		return runDemo(cmd, at, logger)
	}
	return cmd
}

// demoKeys are the throwaway keys of one run; they never touch a disk.
type demoKeys struct {
	server, client ed25519.PrivateKey
	certificate    tls.Certificate
}

func newDemoKeys() (k demoKeys, err error) {
	if _, k.server, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return k, err
	}
	if _, k.client, err = ed25519.GenerateKey(rand.Reader); err != nil {
		return k, err
	}
	cert, key, err := config.NewCertificate("127.0.0.1:443", time.Now())
	if err != nil {
		return k, err
	}
	k.certificate, err = tls.X509KeyPair(cert, key)
	return k, err
}

// demoServer makes the server on a free port; site is where the web site is.
func demoServer(k demoKeys, site net.Addr, logger *slog.Logger) (*server.Server, config.Server, error) {
	settings := config.Server{
		Listen: netip.MustParseAddrPort("127.0.0.1:0"), WebSocketPath: "/" + rand.Text(),
		Pool4: config.DefaultPool4, Pool6: config.DefaultPool6, Encapsulations: config.DefaultEncapsulations(),
	}
	sc := serverConfig(&config.ServerDir{Config: settings, Key: k.server, Certificate: k.certificate}, logger)
	sc.Egress = demoEgress(site).DialContext
	sc.Lookup = func(key ed25519.PublicKey) (*server.User, error) {
		if !key.Equal(k.client.Public()) {
			return nil, config.ErrUnknownClient
		}
		return &server.User{
			Name:   "demo",
			Inner4: config.ServerAddress(settings.Pool4).Next(), Inner6: config.ServerAddress(settings.Pool6).Next(),
		}, nil
	}
	s, err := server.New(sc)
	if err != nil {
		return nil, settings, listenError(err, settings.Listen.String(), "another try: any free port will do")
	}
	settings.Endpoint = s.Addr().String()
	return s, settings, nil
}

// demoNames is a resolver that knows the demo's site alone.
type demoNames struct{}

// LookupNetIP implements egress.Resolver.
func (demoNames) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	if host != demoHost || network == "ip6" {
		return nil, &net.DNSError{Err: "the demo knows " + demoHost + " only", Name: host, IsNotFound: true}
	}
	return []netip.Addr{demoAddr}, nil
}

// demoEgress lets clients reach the site and nothing else.
func demoEgress(site net.Addr) *egress.Dialer {
	return &egress.Dialer{
		Resolver: demoNames{},
		Base: func(ctx context.Context, network string, addr netip.AddrPort) (net.Conn, error) {
			if addr != netip.AddrPortFrom(demoAddr, 80) {
				return nil, fmt.Errorf("%w: the demo reaches http://%s/ only", egress.ErrNotAllowed, demoHost)
			}
			var d net.Dialer
			return d.DialContext(ctx, network, site.String())
		},
	}
}

func runDemo(cmd *cobra.Command, at netip.AddrPort, logger *slog.Logger) error {
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	site, err := startSite()
	if err != nil {
		return listenError(err, "127.0.0.1:0", "another try: any free port will do")
	}
	defer site.close()
	k, err := newDemoKeys()
	if err != nil {
		return &config.Error{What: "cannot make keys: " + lastCause(err), Err: err}
	}
	ln, err := net.Listen("tcp", at.String())
	if err != nil {
		return listenError(err, at.String(), "--listen")
	}
	defer ln.Close()
	s, settings, err := demoServer(k, site.addr, logger)
	if err != nil {
		return err
	}
	serverDone := make(chan error, 1)
	go func() { serverDone <- s.Run(ctx) }()
	defer func() { cancel(); <-serverDone }()

	cc, err := clientConfig(&config.ClientDir{
		Config: config.Client{
			Name: "demo", Server: settings.Endpoint, ServerKey: k.server.Public().(ed25519.PublicKey),
			CertHash: sha256.Sum256(k.certificate.Certificate[0]), WebSocketPath: settings.WebSocketPath,
		},
		Key: k.client,
	}, settings.Encapsulations, logger)
	if err != nil {
		return err
	}
	c, err := client.New(cc)
	if err != nil {
		return &config.Error{What: "cannot start the client: " + lastCause(err), Err: err}
	}
	proxy := front.New(front.Config{Dial: c.Dial, Pages: statuspage.New(c), Logger: logger})
	// Of the proxy's and the client's end, the first is taken below.
	results := make(chan error, 2)
	running := 2
	go func() { results <- ended("the proxy", ln.Addr(), proxy.Serve(ln)) }()
	go func() { results <- clientEnded(c.Run(ctx), settings.Endpoint) }()
	defer func() {
		cancel()
		_ = proxy.Close()
		for ; running > 0; running-- {
			<-results
		}
	}()

	select {
	case <-c.Ready():
	case err := <-results:
		running--
		return err
	case <-ctx.Done():
		return nil
	}
	out := cmd.OutOrStdout()
	printDemo(out, ln.Addr(), readyLine(c.Status(), ln.Addr()))
	enter, closed := lines(ctx, cmd.InOrStdin())
	for {
		select {
		case err := <-results:
			running--
			return err
		case <-ctx.Done():
			return nil
		case <-enter:
			moveOnce(ctx, out, c)
		case <-closed:
			closed = nil
			fmt.Fprintln(out, "standard input is closed: no more moves; interrupt to end")
		}
	}
}

// printDemo tells what to try.
func printDemo(out io.Writer, proxy net.Addr, ready string) {
	fmt.Fprintln(out, ready)
	fmt.Fprintf(out, `
Server, client and a small web site run in this process, with throwaway keys.
The name %[2]s is known at the server only. Try, in another terminal:

  curl --socks5-hostname %[1]s http://%[2]s/          # through SOCKS5
  curl -x http://%[1]s http://%[2]s/                  # through the HTTP proxy
  curl -N --socks5-hostname %[1]s http://%[2]s/clock  # a line a second
  curl --socks5-hostname %[1]s http://%[2]s/big | wc -c

or in a browser: automatic proxy configuration http://%[1]s/proxy.pac, and
open http://%[2]s/

Press Enter to move while one of them runs; interrupt (Ctrl-C) to end.
`, proxy, demoHost)
}

// lines gives an element for each line of in, and closes closed at its end.
// Its goroutine ends after the line that follows the end of ctx.
func lines(ctx context.Context, in io.Reader) (enter <-chan struct{}, closed <-chan struct{}) {
	e, c := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(c)
		r := bufio.NewReader(in)
		for {
			// Lines of any length, read and forgotten.
			_, err := r.ReadSlice('\n')
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return
			}
			if err == nil {
				select {
				case e <- struct{}{}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return e, c
}

// moveOnce asks for a registration over everything and prints its receipt.
func moveOnce(ctx context.Context, out io.Writer, c *client.Client) {
	before := newest(c.Status())
	c.Move()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.NewTimer(moveTimeout)
	defer timeout.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timeout.C:
			fmt.Fprintln(out, "no answer to this move yet")
			return
		case <-tick.C:
			s := c.Status()
			if newest(s) <= before {
				continue
			}
			if r := s.Registrations[len(s.Registrations)-1]; complete(r) {
				fmt.Fprintln(out, receipt(r))
				return
			}
		}
	}
}

// complete tells whether nothing more is worth waiting for.
func complete(r client.Registration) bool {
	unanswered := func(c client.Copy) bool { return !c.Answered }
	return r.Done || r.Selected != "" && len(r.Copies) > 0 && !slices.ContainsFunc(r.Copies, unanswered)
}

// newest is the highest registration number.
func newest(s client.Status) uint32 {
	if len(s.Registrations) == 0 {
		return 0
	}
	return s.Registrations[len(s.Registrations)-1].Number
}

// receipt tells one move in a line.
func receipt(r client.Registration) string {
	var answered []string
	for _, c := range r.Copies {
		if c.Answered {
			answered = append(answered, fmt.Sprintf("%s %s", c.Encapsulation, milliseconds(c.RTTms)))
		}
	}
	line := fmt.Sprintf("move %d: %s selected in %s, translation %s", r.Number, r.Selected, milliseconds(r.DurationMs), orDash(r.Verdict))
	if len(answered) > 0 {
		line += "; answered: " + strings.Join(answered, ", ")
	}
	return line
}
