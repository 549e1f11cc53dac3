// Package interop holds the tests that put another implementation of IKEv2 and
// ESP, strongSwan, in the place of one end.
//
// They need Linux, root, the build tag netns, and strongSwan as Debian packages
// it, with its user-space ESP (plugin kernel-libipsec). docs/interop.md tells
// what is tested.
package interop
