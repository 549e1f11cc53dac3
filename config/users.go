package config

import ()

// RenewUser changes the secret of a user: change is given its record, and sets PSK
// or NTHash. A running server lets the old secret in no more, and ends what was
// made with it.
func (d *ServerDir) RenewUser(name string, change func(*ClientRecord)) error {
	if err := CheckName(name); err != nil {
		return err
	}
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()
	r, err := d.knownRecord(name)
	if err != nil {
		return err
	}
	if r.PSK == "" && r.NTHash == nil {
		return &Error{What: "no user with a password or a shared secret", Where: name, Do: "godwit server remove " + name + ", and add it again"}
	}
	change(r)
	text := r.encode()
	if _, err := parseRecord(d.recordPath(name), name, text); err != nil {
		return err
	}
	return writeFile(d.recordPath(name), text)
}
