package config

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
)

// gatewayPort is where IKE goes that is encapsulated in UDP from the first
// packet on, RFC 7296, Section 2.23.
const gatewayPort = "4500"

// PasswordVariable is where a password may be that is in no file.
const PasswordVariable = variables + "CLIENT_GATEWAY_PASSWORD"

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

	// User logs in with a password, which is in the first line of PasswordFile,
	// or in the environment variable PasswordVariable if that is empty. The
	// gateway shows a certificate of Certificates.CA, or if that is empty of an
	// authority that this system trusts.
	User, PasswordFile string

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
	g.User, g.PasswordFile = s.text("user", "carol"), s.text("password_file", "gateway.password")
	if len(s.values) > 0 {
		s.err = s.done() // a key mistyped tells more than one missing
	}
	certified := g.Certificates.Certificate != ""
	switch ways := btoi(g.PSKFile != "") + btoi(g.ServerKey != nil) + btoi(certified) + btoi(g.User != ""); {
	case ways != 1:
		s.fail("psk_file", strconv.Itoa(ways)+" ways to prove who is who", "give one of user, psk_file, certificate_file or server_key")
	case certified && g.Certificates.CA == "":
		s.fail("ca_file", "a key is missing", "name the file with the root of the gateway's certificate, such as ca_file = \"ca.crt\"")
	case g.Certificates.CA != "" && !certified && g.User == "":
		s.fail("ca_file", "of no use without user or certificate_file", "remove it, or give one of them")
	case g.PasswordFile != "" && g.User == "":
		s.fail("user", "a key is missing", "add a line such as user = \"carol\"")
	case len(g.User) > 256:
		s.fail("user", "longer than 256 bytes", "write the name as the gateway knows it")
	case g.User != "":
		// The system's authorities vouch for anyone, so it has to be said whom.
		if g.Identity == "" {
			g.Identity, _, _ = net.SplitHostPort(g.Server)
		}
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
	Credentials *Credentials // Roots alone for a user with a password; nil for the system's
	Password    []byte
}

// load reads the files that g names.
func (g *Gateway) load(dir string) (s GatewaySecret, err error) {
	switch {
	case g.PSKFile != "":
		s.PSK, err = readLine(in(dir, g.PSKFile))
	case g.KeyFile != "":
		s.Key, err = readKey(in(dir, g.KeyFile))
	case g.User != "":
		if s.Password, err = g.password(dir); err == nil {
			s.Credentials, err = g.Certificates.load(dir)
		}
	default:
		s.Credentials, err = g.Certificates.load(dir)
	}
	return s, err
}

// password reads the user's password.
func (g *Gateway) password(dir string) ([]byte, error) {
	if g.PasswordFile != "" {
		return readLine(in(dir, g.PasswordFile))
	}
	p := os.Getenv(PasswordVariable)
	if p == "" || len(p) > maxSecret {
		return nil, &Error{What: "no password for user " + g.User, Where: "client.toml, [gateway], password_file", Do: "name a file whose first line is the password, or set " + PasswordVariable + " in the environment"}
	}
	return []byte(p), nil
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
