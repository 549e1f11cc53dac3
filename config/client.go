package config

import (
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// ParseClient reads client.toml, with over before what it says. file names it in
// errors.
func ParseClient(file string, data []byte, over ...Override) (*Client, error) {
	return parseTable(file, data, over...).client()
}

// client reads a whole client.toml.
func (t *table) client() (*Client, error) {
	if g := t.gateway(); g != nil {
		c := &Client{Gateway: g, Name: cmp.Or(g.Local, g.User), Server: g.Server}
		c.Encapsulations = []string{"udp"}
		if err := t.local(c); err != nil {
			return nil, err
		}
		return c, nil
	}
	c := &Client{Name: t.need("name", "laptop"), Server: t.hostPort("server")}
	if c.Name != "" {
		if err := CheckName(c.Name); err != nil {
			t.fail("name", strconv.Quote(c.Name)+" is not a client name", "write the name that the server gave")
		}
	}
	c.ServerKey = t.publicKey("server_key")
	c.Verify = t.oneOf("verify", "pin", "webpki")
	if _, given := t.values["cert_hash"]; given || c.Verify == "pin" {
		hash := t.need("cert_hash", strings.Repeat("0", 64))
		if b, err := hex.DecodeString(hash); err == nil && len(b) == len(c.CertHash) {
			copy(c.CertHash[:], b)
		} else {
			t.fail("cert_hash", "not a SHA-256", "it is 64 hexadecimal digits; copy it whole")
		}
	}
	c.WebSocketPath = t.path()
	c.Enrolment = t.enrolment()
	c.Encapsulations = t.encapsulations()
	c.NoTLS = !t.flag("tls", true)
	c.NoPlainHTTP = !t.flag("http_without_tls", true)
	c.ServerName = t.optional("server_name")
	c.HTTPHost = t.optional("http_host")
	c.Fingerprint = t.oneOf("fingerprint", "chrome", "firefox", "go")
	c.Proxy = t.proxy()
	c.Decides = t.oneOf("decides", "server", "client")
	c.Standby = t.flag("standby", false)
	if err := t.local(c); err != nil {
		return nil, err
	}
	return c, nil
}

// local reads the keys that have nothing to do with the server.
func (t *table) local(c *Client) error {
	c.Listen = t.addrPort("listen", DefaultListen)
	c.Forward, _ = t.list("forward", "tcp 127.0.0.1:2222 git.example.org:22")
	c.RemoteForward, _ = t.list("remote_forward", "tcp [::]:8080 127.0.0.1:3000")
	c.Bypass, _ = t.list("bypass", "*.intranet.example.org")
	c.EarlyData = t.oneOf("early_data", "known", "always", "never")
	c.PostQuantum = t.postQuantum()
	c.Tun = t.tun()
	c.NoOffload = !t.flag("offload", true)
	c.NoRecovery = !t.flag("recovery", true)
	c.Duplicate = t.flag("duplicate", false)
	c.ReplayMemory = cmp.Or(t.number("replay_memory", 1, 1024), replayMemory)
	c.LogLevel = t.level()
	return t.done()
}

// Encode writes c as client.toml.
func (c *Client) Encode() []byte {
	lines := []line{
		{"", "name", c.Name},
		{"The server and what it is known by.", "server", c.Server},
		{"", "server_key", base64.StdEncoding.EncodeToString(c.ServerKey)},
		{"", "websocket_path", c.WebSocketPath},
		{"The SOCKS5 and HTTP proxy for your programs.", "listen", c.Listen.String()},
		{"In order of preference.", "encapsulations", c.Encapsulations},
		{"Whose order that is: server or client.", "decides", cmp.Or(c.Decides, "server")},
		{"Another one is kept ready, for when the one in use falls silent.", "standby", c.Standby},
		{"debug, info, warn or error", "log_level", levelName(c.LogLevel)},
		{"How websocket and http look from outside: with TLS or not, under which names, as which browser.", "tls", !c.NoTLS},
		{"", "http_without_tls", !c.NoPlainHTTP},
		{"", "server_name", c.ServerName},
		{"", "http_host", c.HTTPHost},
		{"", "verify", cmp.Or(c.Verify, "pin")},
		{"", "fingerprint", cmp.Or(c.Fingerprint, "chrome")},
		{"The way out of an office: http://HOST:PORT, environment or none.", "proxy", cmp.Or(c.Proxy, "environment")},
		{"When a stream's first bytes need not wait for its destination.", "early_data", cmp.Or(c.EarlyData, "known")},
		{"Keys that are safe from quantum computers: prefer, require or never.", "post_quantum", cmp.Or(c.PostQuantum, "prefer")},
		{"Many packets at once; false is for looking for faults.", "offload", !c.NoOffload},
		{"Lost packets are sent again below TCP, at the path's rate.", "recovery", !c.NoRecovery},
		{"Small datagrams, as of calls, are sent twice: for networks that lose packets.", "duplicate", c.Duplicate},
		{"MiB of what was sent that are kept for a move, at most; no more than the path needs.", "replay_memory", strconv.Itoa(cmp.Or(c.ReplayMemory, replayMemory))},
	}
	if len(c.Enrolment) > 0 {
		lines = slices.Insert(lines, 4, line{"Tells the server this client's key.", "enrolment", base64.StdEncoding.EncodeToString(c.Enrolment)})
	}
	if c.CertHash != [32]byte{} {
		lines = slices.Insert(lines, 3, line{"", "cert_hash", hex.EncodeToString(c.CertHash[:])})
	}
	return render("godwit client; every key is explained in reference-client.toml.", lines)
}
