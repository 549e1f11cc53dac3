package config

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// The files of a client's folder.
const (
	clientFile = "client.toml"
	clientKey  = "client.key"
)

// A ClientDir is the folder of a client: its settings and its key.
type ClientDir struct {
	Config Client
	Key    ed25519.PrivateKey // nil with Config.Gateway
	Secret GatewaySecret      // with Config.Gateway
	path   string
	read   *table // the settings, as they were read
}

// Apply takes note that keys of next are in force, for Changed.
func (d *ClientDir) Apply(next *ClientDir, keys []string) {
	d.read.apply(next.read, keys)
}

// Where tells where a key is set, for errors: the file and the line, a variable
// or a flag.
func (d *ClientDir) Where(key string) string { return d.read.where(key) }

// Changed names the keys that say something else in next, in order.
func (d *ClientDir) Changed(next *ClientDir) []string { return changed(d.read.raw, next.read.raw) }

// Path is the folder's.
func (d *ClientDir) Path() string { return d.path }

// JoinClient makes a client's folder from a link, with a key of its own if the
// link is good for one use. A folder with settings is
// left alone and gives an *Error.
func JoinClient(dir string, l *Link) (*ClientDir, error) {
	file := filepath.Join(dir, clientFile)
	if _, err := os.Stat(file); err == nil {
		return nil, &Error{What: "this folder has joined a server already", Where: dir, Do: "choose another folder with --dir, or remove " + file + " first"}
	}
	key := l.PrivateKey()
	var enrolment []byte
	if l.Once {
		public, own, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, &Error{What: "cannot make a key: " + oneLine(err.Error()), Err: err}
		}
		key, enrolment = own, l.Enrolment(public)
	}
	c := Client{
		Name: l.Name, Server: l.Endpoint, ServerKey: l.ServerKey, CertHash: l.CertHash, WebSocketPath: l.WebSocketPath,
		Enrolment: enrolment, Listen: DefaultListen, Encapsulations: WithUDPPorts(l.UDPPorts),
	}
	if c.CertHash == [32]byte{} {
		c.Verify = "webpki" // the link says so
	}
	text := c.Encode()
	if _, err := ParseClient(file, text); err != nil {
		return nil, err
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	removeTemporaries(dir)
	if err := writeKey(filepath.Join(dir, clientKey), key); err != nil {
		return nil, err
	}
	// The settings come last: a folder that has them is whole.
	if err := writeFile(file, text); err != nil {
		return nil, err
	}
	return LoadClient(dir)
}

// Leave undoes JoinClient, for a link that turned out to be of no use.
func (d *ClientDir) Leave() error {
	// The settings go first: a folder without them is not set up.
	for _, name := range []string{clientFile, clientKey} {
		if err := os.Remove(filepath.Join(d.path, name)); err != nil {
			return cannotWrite(filepath.Join(d.path, name), err)
		}
	}
	return syncDir(d.path)
}

// LoadClient reads a client's folder, with over before what its settings say.
// Errors are of type *Error.
func LoadClient(dir string, over ...Override) (*ClientDir, error) {
	file := filepath.Join(dir, clientFile)
	data, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &Error{What: "no client is set up here", Where: dir, Do: "run godwit client join LINK, or name the folder with --dir", Err: ErrNotSetUp}
	}
	if err != nil {
		return nil, cannotRead(file, err)
	}
	t := parseTable(file, data, over...)
	c, err := t.client()
	if err != nil {
		return nil, err
	}
	d := &ClientDir{Config: *c, path: dir, read: t}
	if c.Gateway != nil {
		d.Secret, err = c.Gateway.load(dir)
		if err != nil {
			return nil, err
		}
		return d, nil
	}
	if d.Key, err = readKey(filepath.Join(dir, clientKey)); err != nil {
		return nil, err
	}
	return d, nil
}
