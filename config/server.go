package config

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ParseServer reads server.toml, with over before what it says. file names it in
// errors.
func ParseServer(file string, data []byte, over ...Override) (*Server, error) {
	return parseTable(file, data, over...).server()
}

// server reads a whole server.toml.
func (t *table) server() (*Server, error) {
	s := &Server{Endpoint: t.hostPort("endpoint")}
	s.Listen = t.addrPort("listen", defaultServerListen(s.Endpoint))
	allow, _ := t.list("allow", "192.0.2.0/24")
	for _, a := range allow {
		p, err := ParseAllow(a)
		if err != nil {
			t.fail("allow", err.Error(), "write a range such as \"192.0.2.0/24\"")
		}
		s.Allow = append(s.Allow, p)
	}
	forward, _ := t.list("allow_forward", "tcp *:8000-8099")
	for _, text := range forward {
		r, err := ParsePortRule(text)
		if err != nil {
			t.fail("allow_forward", err.Error(), "write it as \"tcp *:8000-8099\" or \"tcp inner:80 laptop\"")
		}
		s.AllowForward = append(s.AllowForward, r)
	}
	s.Pool4 = t.pool("pool4", DefaultPool4)
	s.Pool6 = t.pool("pool6", DefaultPool6)
	s.Encapsulations = t.encapsulations()
	s.WebSocketPath = t.path()
	s.PostQuantum = t.postQuantum()
	s.Web = t.web()
	s.Metrics = t.metrics(s.Listen)
	s.NoOffload = !t.flag("offload", true)
	s.NoRecovery = !t.flag("recovery", true)
	s.Duplicate = t.flag("duplicate", false)
	s.ReplayMemory = cmp.Or(t.number("replay_memory", 1, 1024), replayMemory)
	s.LogLevel = t.level()
	s.IKEv2 = t.ikev2(s)
	t.checkStealth(s)
	if err := t.done(); err != nil {
		return nil, err
	}
	return s, nil
}

// defaultServerListen is [::] and the endpoint's port.
func defaultServerListen(endpoint string) netip.AddrPort {
	_, port, _ := net.SplitHostPort(endpoint)
	n, _ := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n))
}

// Encode writes s as server.toml.
func (s *Server) Encode() []byte {
	allow := make([]string, 0, len(s.Allow))
	for _, p := range s.Allow {
		allow = append(allow, p.String())
	}
	forward := make([]string, 0, len(s.AllowForward))
	for _, r := range s.AllowForward {
		forward = append(forward, r.String())
	}
	return render("godwit server; every key is explained in reference-server.toml.", append([]line{
		{"Where clients dial; links carry it.", "endpoint", s.Endpoint},
		{"The one address and port of all encapsulations.", "listen", s.Listen.String()},
		{"Ranges that clients may reach although they are private, loopback or link-local.", "allow", allow},
		{"Ports that clients may have here, and lead to themselves.", "allow_forward", forward},
		{"Inner addresses; the first of each range is the server's.", "pool4", s.Pool4.String()},
		{"", "pool6", s.Pool6.String()},
		{"", "encapsulations", s.Encapsulations},
		{"Secret: whoever asks for another path sees an ordinary web server.", "websocket_path", s.WebSocketPath},
		{"debug, info, warn or error", "log_level", levelName(s.LogLevel)},
		{"Keys that are safe from quantum computers: prefer, require or never.", "post_quantum", cmp.Or(s.PostQuantum, "prefer")},
		{"Many packets at once; false is for looking for faults.", "offload", !s.NoOffload},
		{"Lost packets are sent again below TCP, at the path's rate.", "recovery", !s.NoRecovery},
		{"Small datagrams, as of calls, are sent twice: for networks that lose packets.", "duplicate", s.Duplicate},
		{"MiB of what was sent that are kept for a move, at most; no more than the path needs.", "replay_memory", strconv.Itoa(cmp.Or(s.ReplayMemory, replayMemory))},
	}, append(s.Web.lines(), s.metricsLines()...)...))
}

// metrics reads where numbers are given away. A port alone is one of this host,
// since nobody is asked there who he is.
func (t *table) metrics(listen netip.AddrPort) netip.AddrPort {
	const key, do = "metrics", "write it as \"127.0.0.1:9464\""
	s := t.text(key, "127.0.0.1:9464")
	if s == "" {
		return netip.AddrPort{}
	}
	if strings.HasPrefix(s, ":") {
		s = "127.0.0.1" + s
	}
	ap, err := netip.ParseAddrPort(s)
	switch {
	case err != nil || ap.Port() == 0:
		t.fail(key, strconv.Quote(s)+" is not an address and a port", do)
	case ap.Port() == listen.Port():
		t.fail(key, "the port is that of the encapsulations", do)
	}
	return ap
}

func (s *Server) metricsLines() []line {
	if !s.Metrics.IsValid() {
		return nil
	}
	return []line{{"Where Prometheus may ask for numbers.", "metrics", s.Metrics.String()}}
}
