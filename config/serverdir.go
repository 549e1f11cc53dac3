package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The files of a server's folder.
const (
	serverFile  = "server.toml"
	serverKey   = "server.key"
	tlsKey      = "tls.key"
	tlsCert     = "tls.crt"
	clientsDir  = "clients"
	clientsLock = ".lock" // in clientsDir: held by whoever writes there
)

// A ServerDir is the folder of a server: its settings, keys and clients. Its
// methods may be called from several goroutines, and several processes may use
// one folder.
type ServerDir struct {
	// Config, Key and Certificate are what the files said when the folder was
	// loaded.
	Config      Server
	Key         ed25519.PrivateKey
	Certificate tls.Certificate
	// Credentials are of Config.IKEv2; nil if there are none.
	Credentials *Credentials

	// Logger hears of broken files in clients/; nil discards. Set it before
	// the folder is used.
	Logger *slog.Logger

	path string
	read *table // the settings, as they were read
	now  atomic.Pointer[Server]

	// scanning lets one goroutine at a time read the folder; mu guards the
	// rest and is never held while files are read.
	scanning sync.Mutex
	mu       sync.Mutex
	clients  snapshot
	begun    uint64          // readings of the folder that have begun
	joined   map[string]bool // by public key: joined since the folder was loaded
}

// Path is the folder's.
func (d *ServerDir) Path() string { return d.path }

// Apply takes note that keys of next are in force, for Changed. From now on Now gives what
// next says.
func (d *ServerDir) Apply(next *ServerDir, keys []string) {
	d.read.apply(next.read, keys)
	d.now.Store(&next.Config)
}

// Where tells where a key is set, for errors: the file and the line, a variable
// or a flag.
func (d *ServerDir) Where(key string) string { return d.read.where(key) }

// Changed names the keys that say something else in next, in order.
func (d *ServerDir) Changed(next *ServerDir) []string { return changed(d.read.raw, next.read.raw) }

// Now gives the settings as they were last read. They hold for what can change
// while the server runs, and Config for everything else.
func (d *ServerDir) Now() *Server {
	if s := d.now.Load(); s != nil {
		return s
	}
	return &d.Config
}

// CertHash is the SHA-256 of the certificate in DER, which clients pin. It is zero
// where they are to ask the Web PKI.
func (d *ServerDir) CertHash() [32]byte {
	if d.Config.Web.Verify == "webpki" {
		return [32]byte{}
	}
	return sha256.Sum256(d.Certificate.Certificate[0])
}

// CertificateFiles gives the paths of the files of Config.Web.CertificateFile and
// its key; ok is false if none are named.
func (d *ServerDir) CertificateFiles() (certificate, key string, ok bool) {
	w := d.Config.Web
	return in(d.path, w.CertificateFile), in(d.path, w.CertificateKeyFile), w.CertificateFile != ""
}

// InitServer makes a server's folder. Keys that lie there already are kept, so
// an interrupted run can be repeated; a folder with settings is left alone and
// gives an *Error. The empty WebSocketPath stands for a random one.
func InitServer(dir string, s Server, now time.Time) (*ServerDir, error) {
	file := filepath.Join(dir, serverFile)
	if _, err := os.Stat(file); err == nil {
		return nil, &Error{What: "a server is set up here already", Where: dir, Do: "edit " + file + ", or choose another folder with --dir"}
	}
	if s.WebSocketPath == "" {
		s.WebSocketPath = "/" + randomText(16)
	}
	text := s.Encode()
	if _, err := ParseServer(file, text); err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	if err := makeDir(filepath.Join(dir, clientsDir)); err != nil {
		return nil, err
	}
	removeTemporaries(dir)
	if _, err := os.Stat(filepath.Join(dir, serverKey)); errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, &Error{What: "cannot make a key: " + oneLine(err.Error()), Err: err}
		}
		if err := writeKey(filepath.Join(dir, serverKey), key); err != nil {
			return nil, err
		}
	}
	if _, err := loadCertificate(dir); err != nil {
		if err := makeCertificate(dir, s.Endpoint, now); err != nil {
			return nil, err
		}
	}
	// The settings come last: a folder that has them is whole.
	if err := writeFile(file, text); err != nil {
		return nil, err
	}
	return LoadServer(dir)
}

// LoadServer reads a server's folder, with over before what its settings say.
// Errors are of type *Error.
func LoadServer(dir string, over ...Override) (*ServerDir, error) {
	file := filepath.Join(dir, serverFile)
	data, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{What: "no server is set up here", Where: dir, Do: "run godwit server init --endpoint HOST:PORT, or name the folder with --dir", Err: ErrNotSetUp}
	}
	if err != nil {
		return nil, cannotRead(file, err)
	}
	t := parseTable(file, data, over...)
	s, err := t.server()
	if err != nil {
		return nil, err
	}
	d := &ServerDir{Config: *s, path: dir, read: t, joined: map[string]bool{}}
	if d.Key, err = readKey(filepath.Join(dir, serverKey)); err != nil {
		return nil, err
	}
	if files := (CertificateFiles{Certificate: s.Web.CertificateFile, Key: s.Web.CertificateKeyFile}); files.Certificate != "" {
		c, err := files.load(dir)
		if err != nil {
			return nil, err
		}
		d.Certificate = c.Certificate
	} else if d.Certificate, err = loadCertificate(dir); err != nil {
		return nil, err
	}
	if k := s.IKEv2; k != nil {
		if d.Credentials, err = k.Certificates.load(dir); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// loadCertificate reads tls.key and tls.crt.
func loadCertificate(dir string) (tls.Certificate, error) {
	keyFile, certFile := filepath.Join(dir, tlsKey), filepath.Join(dir, tlsCert)
	key, err := readSecret(keyFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := readFile(certFile)
	if err != nil {
		return tls.Certificate{}, cannotRead(certFile, err)
	}
	c, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, &Error{What: "not a certificate with its key: " + oneLine(err.Error()), Where: certFile, Do: "restore tls.crt and tls.key from a backup", Err: err}
	}
	return c, nil
}

// makeCertificate writes tls.key and tls.crt, the certificate last.
func makeCertificate(dir, endpoint string, now time.Time) error {
	certPEM, keyPEM, err := NewCertificate(endpoint, now)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, tlsKey), keyPEM); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, tlsCert), certPEM)
}

// NewCertificate makes a self-signed certificate and its ECDSA P-256 key, both
// in PEM. Clients know it by its hash alone, so it is made to last and to look
// like any small web server's: it bears the endpoint's name, or a random one
// where the endpoint is an address.
func NewCertificate(endpoint string, now time.Time) (certPEM, keyPEM []byte, err error) {
	fail := func(err error) ([]byte, []byte, error) {
		return nil, nil, &Error{What: "cannot make a certificate: " + oneLine(err.Error()), Err: err}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return fail(err)
	}
	// Nobody shall read from the certificate when the server was set up.
	age, err := rand.Int(rand.Reader, big.NewInt(90*24*3600))
	if err != nil {
		return fail(err)
	}
	begin := now.Add(-time.Duration(age.Int64()+3600) * time.Second).UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             begin,
		NotAfter:              begin.AddDate(20, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	host, _, _ := net.SplitHostPort(endpoint)
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
		host = "web-" + strings.ToLower(rand.Text()[:6])
	} else {
		template.DNSNames = []string{host}
	}
	// A common name has at most 64 characters (RFC 5280, Appendix A).
	if len(host) <= 64 {
		template.Subject = pkix.Name{CommonName: host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fail(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	var c, k bytes.Buffer
	_ = pem.Encode(&c, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a Buffer takes everything
	_ = pem.Encode(&k, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return c.Bytes(), k.Bytes(), nil
}

// randomText gives n random bytes as text that fits a path.
func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: crypto/rand
	return base64.RawURLEncoding.EncodeToString(b)
}
