package transports

// An Interception is an error of Dial that shows that somebody else answers in
// the server's place: a captive portal, a filter, a proxy that breaks TLS open.
type Interception interface {
	error
	// Interception gives the address of a page that a person should look at:
	// http or https, printable, at most 512 bytes; empty if none was named.
	Interception() (url string)
}
