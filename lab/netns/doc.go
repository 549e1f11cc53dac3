// Package netns builds test networks on real sockets: Linux network namespaces
// joined by virtual wires, with NAT routers, firewalls, delay and moves. It
// needs root, and the nft program for NAT and firewalls.
//
// A Lab owns namespaces, wires and processes and removes them when its test
// ends. New builds the usual network on top of a Lab: clients with several
// access networks, a core, a server, and a target that only the server reaches.
// README.md has the picture.
//
// # Limitations
//
// Linux only; elsewhere the package holds just the dissector of captures. Delay
// is made in user space, as kernels without netem cannot, so it is no finer
// than the timers of the Go runtime. Loss and reordering are not made here:
// package lab has them under virtual time.
package netns
