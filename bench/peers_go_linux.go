package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"time"

	"github.com/godwit-net/godwit/lab/netns"
)

// The versions of the peers. Newer ones of some exist; these are the newest
// that the module proxies we know of hand out.
var (
	chiselModule = goPeer{name: "chisel", pkg: "github.com/jpillora/chisel",
		module: "github.com/jpillora/chisel", version: "v1.11.3", checksum: true}
	xrayModule = goPeer{name: "xray", pkg: "github.com/xtls/xray-core/main",
		module: "github.com/xtls/xray-core", version: "v1.260327.0", checksum: true}
	wireguardModule = goPeer{name: "wireguard-go", pkg: "golang.zx2c4.com/wireguard",
		module: "golang.zx2c4.com/wireguard", version: "v0.0.0-20250521234502-f333402bd9cb", checksum: true}

	// Hysteria's own go.mod takes its parts from folders beside it.
	hysteriaModule = goPeer{name: "hysteria", pkg: "github.com/apernet/hysteria/app/v2",
		module: "github.com/apernet/hysteria/app/v2", version: "v2.6.0", checksum: true,
		mod: `
replace github.com/apernet/hysteria/core/v2 => github.com/apernet/hysteria/core/v2 v2.6.0
replace github.com/apernet/hysteria/extras/v2 => github.com/apernet/hysteria/extras/v2 v2.6.0
`}

	// suah.dev/protect confines programs on OpenBSD and does nothing on Linux;
	// not every module proxy has it.
	wireproxyModule = goPeer{name: "wireproxy", pkg: "github.com/pufferffish/wireproxy/cmd/wireproxy",
		module: "github.com/pufferffish/wireproxy", version: "v1.0.9", checksum: true,
		mod: "\nreplace suah.dev/protect => ./protect\n",
		files: map[string]string{
			"protect/go.mod": "module suah.dev/protect\n\ngo 1.21\n",
			"protect/protect.go": `package protect

func Pledge(string) error         { return nil }
func Unveil(string, string) error { return nil }
func UnveilBlock() error          { return nil }
`,
		}}
)

func installs(ps ...goPeer) func(context.Context, *installer) error {
	return func(ctx context.Context, in *installer) error { return in.build(ctx, ps...) }
}

func chiselPeer() *peer {
	return &peer{
		name:    "chisel",
		about:   "chisel " + chiselModule.version + ": SSH (chacha20-poly1305 or AES-GCM as Go chooses) over WebSocket without TLS",
		install: installs(chiselModule),
		start: func(ctx context.Context, s *site) error {
			program := s.programs["chisel"]
			server := s.runServer("chisel-server", program, "server", "--host", serverAddr.String(), "--port", "8080", "--socks5")
			if err := expect(ctx, server.Stderr, "Listening"); err != nil {
				return err
			}
			s.runClient("chisel-client", program, "client", "http://"+serverAddr.String()+":8080", proxyAddress+":socks")
			return nil
		},
	}
}

func hysteriaPeer() *peer {
	return &peer{
		name:    "hysteria",
		about:   "hysteria 2 " + hysteriaModule.version + ": QUIC with its default congestion control (BBR), no bandwidth given",
		install: installs(hysteriaModule),
		start: func(ctx context.Context, s *site) error {
			c, err := newCertificate(s)
			if err != nil {
				return err
			}
			server, err := s.file("server.yaml", fmt.Sprintf(
				"listen: %s:443\ntls:\n  cert: %s\n  key: %s\nauth:\n  type: password\n  password: bench\n", serverAddr, c.cert, c.key))
			if err != nil {
				return err
			}
			client, err := s.file("client.yaml", fmt.Sprintf(
				"server: %s:443\nauth: bench\ntls:\n  sni: bench.test\n  insecure: true\n  pinSHA256: %s\nsocks5:\n  listen: %s\n", serverAddr, c.hash, proxyAddress))
			if err != nil {
				return err
			}
			p := s.runServer("hysteria-server", s.programs["hysteria"], "server", "-c", server, "--disable-update-check")
			if err := expect(ctx, p.Stderr, "server up"); err != nil {
				return err
			}
			s.runClient("hysteria-client", s.programs["hysteria"], "client", "-c", client, "--disable-update-check")
			return nil
		},
	}
}

func xrayPeer() *peer {
	type object = map[string]any
	return &peer{
		name:    "xray",
		about:   "xray " + xrayModule.version + ": VLESS over WebSocket and TLS 1.3",
		install: installs(xrayModule),
		start: func(ctx context.Context, s *site) error {
			c, err := newCertificate(s)
			if err != nil {
				return err
			}
			const id = "5783a3e7-e373-51cd-8642-c83782b807c5"
			server, err := json.Marshal(object{
				"log": object{"loglevel": "warning"},
				"inbounds": []object{{
					"listen": serverAddr.String(), "port": 443, "protocol": "vless",
					"settings": object{"clients": []object{{"id": id}}, "decryption": "none"},
					"streamSettings": object{
						"network": "ws", "security": "tls", "wsSettings": object{"path": "/bench"},
						"tlsSettings": object{"alpn": []string{"http/1.1"}, "certificates": []object{{"certificateFile": c.cert, "keyFile": c.key}}},
					},
				}},
				"outbounds": []object{{"protocol": "freedom"}},
			})
			if err != nil {
				return err
			}
			host, port, err := net.SplitHostPort(proxyAddress)
			if err != nil {
				return err
			}
			client, err := json.Marshal(object{
				"log": object{"loglevel": "warning"},
				"inbounds": []object{{
					"listen": host, "port": json.Number(port), "protocol": "socks", "settings": object{"auth": "noauth"},
				}},
				"outbounds": []object{{
					"protocol": "vless",
					"settings": object{"vnext": []object{{
						"address": serverAddr.String(), "port": 443, "users": []object{{"id": id, "encryption": "none"}},
					}}},
					"streamSettings": object{
						"network": "ws", "security": "tls", "wsSettings": object{"path": "/bench"},
						"tlsSettings": object{"serverName": "bench.test", "alpn": []string{"http/1.1"}, "pinnedPeerCertSha256": c.hash},
					},
				}},
			})
			if err != nil {
				return err
			}
			serverFile, err := s.file("server.json", string(server))
			if err != nil {
				return err
			}
			clientFile, err := s.file("client.json", string(client))
			if err != nil {
				return err
			}
			p := s.runServer("xray-server", s.programs["xray"], "run", "-c", serverFile)
			if err := expect(ctx, p.Stdout, "started"); err != nil {
				return err
			}
			s.runClient("xray-client", s.programs["xray"], "run", "-c", clientFile)
			return nil
		},
	}
}

func wireproxyPeer() *peer {
	return &peer{
		name: "wireproxy",
		about: "wireproxy " + wireproxyModule.version + " to wireguard-go " + wireguardModule.version[len(wireguardModule.version)-12:] +
			" on a TUN device, MTU 1420; the server's kernel routes, which is not in its CPU",
		install: installs(wireproxyModule, wireguardModule),
		start:   startWireproxy,
	}
}

func startWireproxy(ctx context.Context, s *site) error {
	clientKey, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	serverKey, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	const port, inner = 51820, "10.66.0.2/32"
	// Its control socket is called after the device, for all namespaces alike.
	dev := fmt.Sprintf("gwb%d", os.Getpid())
	p := s.runServer("wireguard-go", s.programs["wireguard-go"], "-f", dev)
	socket := "/var/run/wireguard/" + dev + ".sock"
	if err := configureWireGuard(ctx, p, socket, fmt.Sprintf(
		"set=1\nprivate_key=%x\nlisten_port=%d\nreplace_peers=true\npublic_key=%x\nreplace_allowed_ips=true\nallowed_ip=%s\n\n",
		serverKey.Bytes(), port, clientKey.PublicKey().Bytes(), inner)); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"link", "set", dev, "mtu", "1420", "up"},
		{"addr", "add", "10.66.0.1/24", "dev", dev},
	} {
		if _, err := s.run(ctx, s.server, "ip", args...); err != nil {
			return err
		}
	}
	text := base64.StdEncoding.EncodeToString
	conf, err := s.file("wireproxy.conf", fmt.Sprintf(
		"[Interface]\nAddress = %s\nPrivateKey = %s\nMTU = 1420\n\n[Peer]\nPublicKey = %s\nEndpoint = %s:%d\nAllowedIPs = 0.0.0.0/0\n\n[Socks5]\nBindAddress = %s\n",
		inner, text(clientKey.Bytes()), text(serverKey.PublicKey().Bytes()), serverAddr, port, proxyAddress))
	if err != nil {
		return err
	}
	s.runClient("wireproxy", s.programs["wireproxy"], "-s", "-c", conf)
	return nil
}

// configureWireGuard writes settings to wireguard-go's control socket, which
// comes a moment after the process.
func configureWireGuard(ctx context.Context, p *netns.Process, socket, settings string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			defer c.Close()
			deadline, _ := ctx.Deadline()
			c.SetDeadline(deadline)
			if _, err := io.WriteString(c, settings); err != nil {
				return fmt.Errorf("set up wireguard-go: %w", err)
			}
			answer := make([]byte, 64)
			n, err := c.Read(answer)
			if err != nil {
				return fmt.Errorf("set up wireguard-go: %w", err)
			}
			if !bytes.HasPrefix(answer[:n], []byte("errno=0\n")) {
				return fmt.Errorf("set up wireguard-go: it answers %q", answer[:n])
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("set up wireguard-go: %w", err)
		case <-p.Done():
			return errors.New("set up wireguard-go: it ended")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A certificate is the files of a throwaway one for bench.test, and its hash.
type certificate struct{ cert, key, hash string }

func newCertificate(s *site) (c certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench.test"}, DNSNames: []string{"bench.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return c, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return c, err
	}
	sum := sha256.Sum256(der)
	c.hash = hex.EncodeToString(sum[:])
	c.cert, err = s.file("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	if err != nil {
		return c, err
	}
	c.key, err = s.file("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return c, err
}
