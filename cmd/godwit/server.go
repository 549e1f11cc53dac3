package main

import "github.com/spf13/cobra"

func newServer() *cobra.Command {
	return group("server", "Set up and run a server",
		newServerInit(), newServerInvite(), newServerClients(), newServerStatus(), newServerRemove(), newServerUser(), newServerCertificate(), newServerRun(), newInstall("server"), newUninstall("server"))
}
