package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godwit-net/godwit/client"
	"github.com/godwit-net/godwit/config"
	"github.com/godwit-net/godwit/ipsec/ike"
	"github.com/godwit-net/godwit/ipsec/knock"
	"github.com/godwit-net/godwit/server"
	"github.com/godwit-net/godwit/server/egress"
	"github.com/godwit-net/godwit/transports"
	"github.com/godwit-net/godwit/transports/esp"
	"github.com/godwit-net/godwit/transports/http"
	"github.com/godwit-net/godwit/transports/proxy"
	"github.com/godwit-net/godwit/transports/system"
	"github.com/godwit-net/godwit/transports/tcp"
	"github.com/godwit-net/godwit/transports/udp"
	"github.com/godwit-net/godwit/transports/web"
	"github.com/godwit-net/godwit/transports/websocket"
)

// postQuantum is the values of the key post_quantum.
var postQuantum = map[string]ike.PostQuantum{
	"prefer": ike.PreferPostQuantum, "require": ike.RequirePostQuantum, "never": ike.NeverPostQuantum,
}

// serverConfig turns a server's folder into what package server takes. The
// egress is the caller's.
func serverConfig(d *config.ServerDir, logger *slog.Logger) server.Config {
	names := make([]transports.Name, 0, len(d.Config.Encapsulations))
	for _, n := range d.Config.Encapsulations {
		names = append(names, transports.Name(n))
	}
	return server.Config{
		Logger:         logger,
		Network:        system.New(),
		Listen:         d.Config.Listen,
		Encapsulations: names,
		PrivateKey:     d.Key,
		TLSCertificate: d.Certificate,
		WebSocketPath:  d.Config.WebSocketPath,
		Pool4:          d.Config.Pool4,
		Pool6:          d.Config.Pool6,
		NoOffload:      d.Config.NoOffload,
		PostQuantum:    postQuantum[d.Config.PostQuantum],
		NoRecovery:     d.Config.NoRecovery,
		Duplicate:      d.Config.Duplicate,
		ReplayBytes:    d.Config.ReplayMemory << 20,
		Lookup: func(key ed25519.PublicKey) (*server.User, error) {
			return user(d.LookupClient(key, time.Now()))
		},
		Enrol: func(key ed25519.PublicKey, proof []byte) (*server.User, error) {
			return user(d.Enrol(key, proof, time.Now()))
		},
		AllowPort: func(user, network string, at netip.AddrPort) bool {
			return config.AllowsPort(d.Now().AllowForward, user, network, at)
		},
	}
}

// user turns a client's record into what package server takes, and an error into
// one that tells the client why.
func user(r *config.ClientRecord, err error) (*server.User, error) {
	switch {
	case errors.Is(err, config.ErrExpired):
		return nil, fmt.Errorf("%w: %w", ike.ReasonExpired, err)
	case errors.Is(err, config.ErrUsed):
		return nil, fmt.Errorf("%w: %w", ike.ReasonUsed, err)
	case err != nil:
		return nil, err
	}
	return &server.User{Name: r.Name, Inner4: r.Inner4, Inner6: r.Inner6}, nil
}

// guestsConfig turns the table [ikev2] into what package server takes; nil if
// there is none.
func guestsConfig(d *config.ServerDir, logger *slog.Logger) (*server.Guests, error) {
	k := d.Config.IKEv2
	if k == nil {
		return nil, nil
	}
	id, err := ike.ParseIdentity(k.Identity)
	if err != nil {
		return nil, &config.Error{What: "not an identity: " + err.Error(), Where: d.Where("ikev2.identity"), Do: "write the server's domain name", Err: err}
	}
	g := &server.Guests{
		Identity: id,
		Listen:   k.Listen,
		DNS:      k.DNS,
		Lookup: func(id ike.Identity) (*server.User, error) {
			r, err := d.LookupUser(id.String(), time.Now())
			if err != nil && id.Type == ike.IDKeyID {
				// Some clients send any name as opaque bytes.
				r, err = d.LookupUser(string(id.Data), time.Now())
			}
			if err != nil {
				return nil, err
			}
			return guest(r), nil
		},
		Login: func(name string) (*server.User, error) {
			// A name that nobody has may cause a reading of the folder; so that
			// this tells nothing, every name does.
			_, _ = d.LookupUser("", time.Now())
			r, err := d.LookupUser(name, time.Now())
			if err != nil {
				return nil, err
			}
			return guest(r), nil
		},
		Router: &egress.Router{
			Policy:   egressPolicy(d),
			Resolver: netip.AddrPortFrom(config.SystemResolver(), 53),
			Logger:   logger,
		},
	}
	if c := d.Credentials; c != nil {
		g.Certificates, g.Roots = c.Certificate.Certificate, c.Roots
		g.CertificateKey, _ = c.Certificate.PrivateKey.(crypto.Signer) // all of crypto/tls are
		if err := checkCertificate(d, logger); err != nil {
			return nil, err
		}
	}
	return g, nil
}

// checkCertificate looks at the server's certificate as its clients will.
func checkCertificate(d *config.ServerDir, logger *slog.Logger) error {
	chain := d.Credentials.Certificate.Certificate
	if len(chain) == 0 {
		return nil
	}
	where, renew := d.Path()+", server.toml, [ikev2], certificate_file", "renew it, or run godwit server certificate"
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return &config.Error{What: "not a certificate: " + err.Error(), Where: where, Do: renew, Err: err}
	}
	id := d.Config.IKEv2.Identity
	if !strings.Contains(id, "@") && leaf.VerifyHostname(id) != nil {
		return &config.Error{What: "the certificate is not for " + id + ", so clients would refuse it", Where: where, Do: "name one that is, or change identity"}
	}
	if left := time.Until(leaf.NotAfter); left < 14*24*time.Hour {
		logger.Warn("the certificate for IKEv2 clients ends soon, or has: "+renew, slog.Time("end", leaf.NotAfter))
	}
	return nil
}

// guest is a record as package server takes it.
func guest(r *config.ClientRecord) *server.User {
	return &server.User{
		Name: r.Name, Inner4: r.Inner4, Inner6: r.Inner6,
		PSK: ike.Secret(r.PSK), Certificate: r.Certified, NTHash: ike.Secret(r.NTHash),
	}
}

// egressPolicy is what clients may reach.
func egressPolicy(d *config.ServerDir) egress.Policy {
	return egress.Policy{Also: func() []netip.Prefix { return d.Now().Allow }, Own: egress.HostAddresses}
}

// clientConfig turns a client's folder into what package client takes.
func clientConfig(d *config.ClientDir, encapsulations []string, logger *slog.Logger) (client.Config, error) {
	gateway, err := gatewayConfig(d)
	if err != nil {
		return client.Config{}, err
	}
	upstream, err := upstreamProxy(d, os.Getenv)
	if err != nil {
		return client.Config{}, err
	}
	host, _, _ := net.SplitHostPort(d.Config.Server) // checked by package config
	names := outsideOf(d).resolver
	var list []transports.Transport
	for _, n := range encapsulations {
		switch name := transports.Name(n); name.Base() {
		case transports.ESP:
			list = append(list, esp.New())
		case transports.UDP:
			list = append(list, udp.New(udp.Options{NoOffload: d.Config.NoOffload, Port: name.Port()}))
		case transports.TCP:
			list = append(list, tcp.New())
		case transports.WebSocket, transports.HTTP:
			o := web.Options{
				TLS: !d.Config.NoTLS, ServerName: cmp.Or(d.Config.ServerName, host), Host: d.Config.HTTPHost,
				Path: d.Config.WebSocketPath, CertHash: d.Config.CertHash,
				Fingerprint: web.Fingerprint(d.Config.Fingerprint),
			}
			if d.Config.Verify == "webpki" {
				o.CertHash = [32]byte{}
			}
			if n == string(transports.HTTP) {
				list = append(list, http.New(http.Options{Options: o, Plain: !d.Config.NoPlainHTTP}))
				continue
			}
			list = append(list, websocket.New(o))
		}
	}
	for i, t := range list {
		if upstream != nil && !t.Name().Datagrams() {
			list[i] = proxy.Wrap(t, upstream, proxy.Options{
				Target: d.Config.Server,
				Resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
					return names.LookupNetIP(ctx, "ip", host)
				},
			})
		}
	}
	return client.Config{
		Logger:      logger,
		Network:     system.New(),
		Transports:  list,
		Server:      d.Config.Server,
		ServerKey:   d.Config.ServerKey,
		PrivateKey:  d.Key,
		Enrolment:   d.Config.Enrolment,
		Mark:        knock.NewKey(d.Config.ServerKey, d.Config.WebSocketPath).Mark,
		NoOffload:   d.Config.NoOffload,
		NoRecovery:  d.Config.NoRecovery,
		Duplicate:   d.Config.Duplicate,
		ReplayBytes: d.Config.ReplayMemory << 20,

		Standby:       d.Config.Standby,
		ClientDecides: d.Config.Decides == "client",

		PostQuantum: postQuantum[d.Config.PostQuantum],

		EarlyData: client.EarlyData(d.Config.EarlyData),
		Gateway:   gateway,
	}, nil
}

// upstreamProxy gives the proxy that the settings or the environment name; nil
// if there is none.
func upstreamProxy(d *config.ClientDir, getenv func(string) string) (*proxy.Upstream, error) {
	var u *proxy.Upstream
	var err error
	where := d.Where("proxy")
	switch d.Config.Proxy {
	case "none", "":
	case "environment":
		where = "the environment, HTTPS_PROXY or ALL_PROXY"
		u, err = proxy.FromEnvironment(getenv, d.Config.Server)
	default:
		u, err = proxy.Parse(d.Config.Proxy)
	}
	if err != nil {
		return nil, &config.Error{What: err.Error(), Where: where, Do: "write http://HOST:PORT, or none", Err: err}
	}
	return u, nil
}

// gatewayConfig turns the table [gateway] into what package client takes; nil
// if there is none.
func gatewayConfig(d *config.ClientDir) (*client.Gateway, error) {
	c := d.Config.Gateway
	if c == nil {
		return nil, nil
	}
	g := &client.Gateway{PSK: d.Secret.PSK, PrivateKey: d.Secret.Key, PeerKey: c.ServerKey}
	if c.User != "" {
		g.Login = &ike.Login{Name: c.User, Password: d.Secret.Password}
		g.SystemRoots = d.Secret.Credentials == nil
	}
	if s := d.Secret.Credentials; s != nil {
		g.Certificates, g.Roots = s.Certificate.Certificate, s.Roots
		g.CertificateKey, _ = s.Certificate.PrivateKey.(crypto.Signer) // all of crypto/tls are
	}
	local := c.Local
	if _, err := ike.ParseIdentity(c.User); local == "" && err == nil {
		local = c.User // who logs in by name may call itself anything
	}
	for _, id := range []struct {
		key, text string
		set       func(ike.Identity)
	}{
		{"local", local, func(i ike.Identity) { g.Local = i }},
		{"identity", c.Identity, func(i ike.Identity) { g.Remote = &i }},
	} {
		if id.text == "" {
			continue
		}
		i, err := ike.ParseIdentity(id.text)
		if err != nil {
			return nil, &config.Error{What: "not an identity: " + err.Error(), Where: d.Where("gateway." + id.key), Do: "write a domain name, a mail address or an IP address", Err: err}
		}
		id.set(i)
	}
	switch {
	case local != "":
	case c.User != "":
		g.Local = ike.Identity{Type: ike.IDKeyID, Data: []byte(c.User)}
	default:
		id, err := ike.KeyIdentity(d.Secret.Key.Public().(ed25519.PublicKey))
		if err != nil {
			return nil, err
		}
		g.Local = id
	}
	return g, nil
}

// profileFlag adds the hidden flag that developers measure with.
func profileFlag(cmd *cobra.Command) *string {
	file := cmd.Flags().String("cpuprofile", "", "write a CPU profile to FILE")
	_ = cmd.Flags().MarkHidden("cpuprofile") // fails for unknown flags only
	return file
}

// lifetimeFlags adds the hidden flags that tests shorten the lives of SAs with;
// zero means the default, negative never.
func lifetimeFlags(cmd *cobra.Command) (ike, child *time.Duration) {
	ike = cmd.Flags().Duration("ike-lifetime", 0, "age at which this end rekeys the IKE SA")
	child = cmd.Flags().Duration("child-lifetime", 0, "age at which this end rekeys a Child SA")
	_ = cmd.Flags().MarkHidden("ike-lifetime")
	_ = cmd.Flags().MarkHidden("child-lifetime")
	return ike, child
}

// profile writes a CPU profile to file until stop; nothing if file is empty.
func profile(file string) (stop func(), err error) {
	if file == "" {
		return func() {}, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, &config.Error{What: "cannot write the profile " + file + ": " + lastCause(err), Err: err}
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		_ = f.Close()
		return nil, &config.Error{What: "cannot profile: " + lastCause(err), Err: err}
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

// setUp prepares the process for a run and starts a profile if one is asked for.
func setUp(profileTo string) (stop func(), err error) {
	leanHeap()
	return profile(profileTo)
}

// leanHeap has the collector run earlier than by default. The data path
// allocates next to nothing, so it costs no speed, and a process with ten
// thousand idle streams is a third smaller. GOGC in the environment goes
// before it.
func leanHeap() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(25)
	}
}
