package config

import (
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"
)

// parseRecord reads clients/NAME.toml.
func parseRecord(file, name string, data []byte) (*ClientRecord, error) {
	t := parseTable(file, data)
	r := &ClientRecord{Name: name}
	if t.has("identity") {
		r.Identity = t.need("identity", "carol@example.org")
		r.PSK, r.NTHash = t.text("psk", "a secret"), t.ntHash("nt_hash")
		r.Certified = t.flag("certificate", false)
		if btoi(r.PSK != "")+btoi(r.NTHash != nil)+btoi(r.Certified) != 1 {
			t.fail("psk", "a user needs one of psk, nt_hash or certificate", "remove the user and add it again")
		}
	} else {
		if t.has("invitation") {
			r.Invitation = t.publicKey("invitation")
		}
		if r.Invitation == nil || t.has("public_key") {
			r.PublicKey = t.publicKey("public_key")
		}
	}
	r.Inner4 = t.inner("inner4", "10.143.0.2")
	r.Inner6 = t.inner("inner6", "fd2c:9f61:7e0b::2")
	r.Created, r.Expires, r.Joined = t.time("created"), t.time("expires"), t.flag("joined", false)
	if !r.Joined && r.Expires.IsZero() {
		t.fail("expires", "neither joined nor a time of expiry", "remove the client and invite it again")
	}
	if err := t.done(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *ClientRecord) encode() []byte {
	var lines []line
	if r.Invitation != nil {
		lines = append(lines, line{"The key of a link that is good for one use.", "invitation", base64.StdEncoding.EncodeToString(r.Invitation)})
	}
	if r.PublicKey != nil {
		lines = append(lines, line{"", "public_key", base64.StdEncoding.EncodeToString(r.PublicKey)})
	}
	if r.Identity != "" {
		lines = []line{{"What the user's IKEv2 client calls itself, and its secret.", "identity", r.Identity}}
		if r.PSK != "" {
			lines = append(lines, line{"", "psk", r.PSK})
		}
		if r.Certified {
			lines = append(lines, line{"", "certificate", true})
		}
		if r.NTHash != nil {
			lines = append(lines, line{"Of the password. As good as the password itself for whoever reads it.", "nt_hash", hex.EncodeToString(r.NTHash)})
		}
	}
	lines = append(lines, []line{
		{"", "inner4", r.Inner4.String()},
		{"", "inner6", r.Inner6.String()},
		{"", "created", r.Created.UTC().Truncate(time.Second)},
	}...)
	if r.Joined {
		lines = append(lines, line{"", "joined", true})
	} else {
		lines = append(lines, line{"The link must be used before this.", "expires", r.Expires.UTC().Truncate(time.Second)})
	}
	return render("godwit client "+r.Name, lines)
}

// ntHash reads the hash of a password; an absent key gives nil.
func (t *table) ntHash(key string) []byte {
	s := t.text(key, strings.Repeat("0", 32))
	if s == "" {
		return nil
	}
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 16 {
		t.fail(key, "not a password's hash", "remove the user and add it again")
		return nil
	}
	return b
}
