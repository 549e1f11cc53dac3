package main

import "github.com/spf13/cobra"

func newClient() *cobra.Command {
	return group("client", "Set up and run a client", newClientJoin(), newClientRun(), newClientForce(), newClientCleanup(), newInstall("client"), newUninstall("client"))
}
