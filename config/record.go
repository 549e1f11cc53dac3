package config

import (
	"encoding/base64"
	"time"
)

// parseRecord reads clients/NAME.toml.
func parseRecord(file, name string, data []byte) (*ClientRecord, error) {
	t := parseTable(file, data)
	r := &ClientRecord{Name: name}
	if t.has("identity") {
		r.Identity = t.need("identity", "carol@example.org")
		r.PSK, r.Password = t.text("psk", "a secret"), t.text("password", "a secret")
		r.Certified = t.flag("certificate", false)
		if btoi(r.PSK != "")+btoi(r.Password != "")+btoi(r.Certified) != 1 {
			t.fail("psk", "a user needs one of psk, password or certificate", "remove the user and add it again")
		}
	} else {
		r.PublicKey = t.publicKey("public_key")
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
	lines := []line{{"", "public_key", base64.StdEncoding.EncodeToString(r.PublicKey)}}
	if r.Identity != "" {
		lines = []line{{"What the user's IKEv2 client calls itself, and its secret.", "identity", r.Identity}}
		if r.PSK != "" {
			lines = append(lines, line{"", "psk", r.PSK})
		}
		if r.Certified {
			lines = append(lines, line{"", "certificate", true})
		}
		if r.Password != "" {
			lines = append(lines, line{"", "password", r.Password})
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
