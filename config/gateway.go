package config

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// gatewayPort is where IKE goes that is encapsulated in UDP from the first
// packet on, RFC 7296, Section 2.23.
const gatewayPort = "4500"

// maxSecret bounds a shared key or a password, in bytes.
const maxSecret = 1024

// A Gateway is the table [gateway] of client.toml: an IKEv2 gateway that need
// not be godwit, and how both ends prove who they are. It stands in place of
// what a link from a godwit server holds.
type Gateway struct {
	// Server is host:port; 4500 is the port by default.
	Server string
	// Identity is what the gateway has to call itself. Empty: any identity
	// that it can prove.
	Identity string
	// Local is what this client calls itself; with a raw public key it may be
	// empty, for the key's own name.
	Local string

	// Files of secrets lie in the client's folder unless their path is
	// absolute. One of these ways is chosen:

	PSKFile string // a shared key, in the file's first line

	Certificates CertificateFiles // of both ends' authorities

	ServerKey ed25519.PublicKey // the gateway's raw public key,
	KeyFile   string            // and this client's private key, in PEM
}

// gateway reads the table [gateway]; nil if there is none.
func (t *table) gateway() *Gateway {
	s := t.sub("gateway")
	if s == nil {
		return nil
	}
	g := &Gateway{Server: s.need("server", "vpn.example.org")}
	if g.Server != "" {
		if _, _, err := net.SplitHostPort(g.Server); err != nil {
			g.Server = net.JoinHostPort(strings.Trim(g.Server, "[]"), gatewayPort)
		}
		if err := CheckEndpoint(g.Server); err != nil {
			s.fail("server", err.Error(), "write it as \"vpn.example.org\"")
		}
	}
	g.Identity = s.text("identity", "vpn.example.org")
	g.Local = s.text("local", "carol@example.org")
	g.PSKFile = s.text("psk_file", "gateway.psk")
	if s.has("server_key") {
		g.ServerKey = s.publicKey("server_key")
		if g.KeyFile = s.text("key_file", clientKey); g.KeyFile == "" {
			g.KeyFile = clientKey
		}
	} else {
		s.declare(Text, "server_key", "key_file")
	}
	g.Certificates = s.certificateFiles()
	if len(s.values) > 0 {
		s.err = s.done() // a key mistyped tells more than one missing
	}
	switch ways := btoi(g.PSKFile != "") + btoi(g.ServerKey != nil) + btoi(g.Certificates.Certificate != ""); {
	case ways != 1:
		s.fail("psk_file", strconv.Itoa(ways)+" ways to prove who is who", "give one of psk_file, certificate_file or server_key")
	case g.Local == "" && g.ServerKey == nil:
		s.fail("local", "a key is missing", "add a line such as local = \"carol@example.org\"")
	}
	t.join(s)
	return g
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A GatewaySecret is what the files of a Gateway hold.
type GatewaySecret struct {
	PSK         []byte
	Key         ed25519.PrivateKey
	Credentials *Credentials
}

// load reads the files that g names.
func (g *Gateway) load(dir string) (s GatewaySecret, err error) {
	switch {
	case g.PSKFile != "":
		s.PSK, err = readLine(in(dir, g.PSKFile))
	case g.KeyFile != "":
		s.Key, err = readKey(in(dir, g.KeyFile))
	default:
		s.Credentials, err = g.Certificates.load(dir)
	}
	return s, err
}

// readLine reads a secret: a file's first line.
func readLine(path string) ([]byte, error) {
	data, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" || len(line) > maxSecret {
		return nil, &Error{What: fmt.Sprintf("the first line is not a secret of 1 to %d bytes", maxSecret), Where: path, Do: "write the secret alone into the file"}
	}
	return []byte(line), nil
}
