package ocsf

import (
	"maps"
	"slices"
)

// This file is the table of Windows event logs: which of Sigma's log sources an
// event of a channel answers to, by its number. It follows the taxonomy appendix
// of the Sigma specification 2.1; the rows for the Security log follow the
// audit pipeline that rule authors use (4688 and so on stand in for Sysmon).

const sysmonChannel = "Microsoft-Windows-Sysmon/Operational"

// WindowsServices maps channels to Sigma's services.
var WindowsServices = map[string]string{
	sysmonChannel: "sysmon",
	"Application": "application",
	"Security":    "security",
	"System":      "system",
	"DNS Server":  "dns-server",
	"Microsoft-Windows-Application-Experience/Program-Telemetry":               "application-experience",
	"Microsoft-Windows-Application-Experience/Program-Compatibility-Assistant": "application-experience",
	"Microsoft-Windows-AppLocker/MSI and Script":                               "applocker",
	"Microsoft-Windows-AppLocker/EXE and DLL":                                  "applocker",
	"Microsoft-Windows-AppLocker/Packaged app-Deployment":                      "applocker",
	"Microsoft-Windows-AppLocker/Packaged app-Execution":                       "applocker",
	"Microsoft-Windows-AppModel-Runtime/Admin":                                 "appmodel-runtime",
	"Microsoft-Windows-AppXDeploymentServer/Operational":                       "appxdeployment-server",
	"Microsoft-Windows-AppxPackaging/Operational":                              "appxpackaging-om",
	"Microsoft-Windows-BitLocker/BitLocker Management":                         "bitlocker",
	"Microsoft-Windows-Bits-Client/Operational":                                "bits-client",
	"Microsoft-Windows-CAPI2/Operational":                                      "capi2",
	"Microsoft-Windows-CertificateServicesClient-Lifecycle-System/Operational": "certificateservicesclient-lifecycle-system",
	"Microsoft-Windows-CodeIntegrity/Operational":                              "codeintegrity-operational",
	"Microsoft-Windows-DHCP-Server/Operational":                                "dhcp",
	"Microsoft-Windows-Diagnosis-Scripted/Operational":                         "diagnosis-scripted",
	"Microsoft-Windows-DNS Client Events/Operational":                          "dns-client",
	"Microsoft-Windows-DNS-Client/Operational":                                 "dns-client",
	"Microsoft-Windows-DNS-Server/Analytical":                                  "dns-server-analytic",
	"Microsoft-Windows-DNS-Server/Audit":                                       "dns-server-audit",
	"Microsoft-Windows-DriverFrameworks-UserMode/Operational":                  "driver-framework",
	"Microsoft-Windows-Windows Firewall With Advanced Security/Firewall":       "firewall-as",
	"Microsoft-Windows-Hyper-V-Worker":                                         "hyper-v-worker",
	"Microsoft-IIS-Configuration/Operational":                                  "iis-configuration",
	"Microsoft-Windows-Kernel-EventTracing":                                    "kernel-event-tracing",
	"Microsoft-Windows-Kernel-ShimEngine/Operational":                          "kernel-shimengine",
	"Microsoft-Windows-Kernel-ShimEngine/Diagnostic":                           "kernel-shimengine",
	"Microsoft-Windows-LDAP-Client/Debug":                                      "ldap",
	"Microsoft-Windows-LSA/Operational":                                        "lsa-server",
	"MSExchange Management":                                                    "msexchange-management",
	"Microsoft-Windows-Ntfs/Operational":                                       "ntfs",
	"Microsoft-Windows-NTLM/Operational":                                       "ntlm",
	"OpenSSH/Operational":                                                      "openssh",
	"Microsoft-Windows-PowerShell/Operational":                                 "powershell",
	"PowerShellCore/Operational":                                               "powershell",
	"Windows PowerShell":                                                       "powershell-classic",
	"Microsoft-Windows-PrintService/Admin":                                     "printservice-admin",
	"Microsoft-Windows-PrintService/Operational":                               "printservice-operational",
	"Microsoft-Windows-Security-Mitigations/Kernel Mode":                       "security-mitigations",
	"Microsoft-Windows-Security-Mitigations/User Mode":                         "security-mitigations",
	"Microsoft-Windows-SENSE/Operational":                                      "sense",
	"Microsoft-ServiceBus-Client/Operational":                                  "servicebus-client",
	"Microsoft-ServiceBus-Client/Admin":                                        "servicebus-client",
	"Microsoft-Windows-Shell-Core/Operational":                                 "shell-core",
	"Microsoft-Windows-SmbClient/Security":                                     "smbclient-security",
	"Microsoft-Windows-SmbClient/Connectivity":                                 "smbclient-connectivity",
	"Microsoft-Windows-SMBServer/Connectivity":                                 "smbserver-connectivity",
	"Microsoft-Windows-TaskScheduler/Operational":                              "taskscheduler",
	"Microsoft-Windows-TerminalServices-LocalSessionManager/Operational":       "terminalservices-localsessionmanager",
	"Microsoft-Windows-VHDMP/Operational":                                      "vhdmp",
	"Microsoft-Windows-Windows Defender/Operational":                           "windefend",
	"Microsoft-Windows-WMI-Activity/Operational":                               "wmi",
}

// windowsEvent is a channel's service and a number in it.
type windowsEvent struct {
	service string
	id      int64
}

// windowsCategories maps numbers to Sigma's categories.
var windowsCategories = map[windowsEvent][]string{
	{"sysmon", 1}:   {"process_creation"},
	{"sysmon", 2}:   {"file_change"},
	{"sysmon", 3}:   {"network_connection"},
	{"sysmon", 4}:   {"sysmon_status"},
	{"sysmon", 5}:   {"process_termination"},
	{"sysmon", 6}:   {"driver_load"},
	{"sysmon", 7}:   {"image_load"},
	{"sysmon", 8}:   {"create_remote_thread"},
	{"sysmon", 9}:   {"raw_access_thread"},
	{"sysmon", 10}:  {"process_access"},
	{"sysmon", 11}:  {"file_event"},
	{"sysmon", 12}:  {"registry_event", "registry_add", "registry_delete"},
	{"sysmon", 13}:  {"registry_event", "registry_set"},
	{"sysmon", 14}:  {"registry_event", "registry_rename"},
	{"sysmon", 15}:  {"create_stream_hash"},
	{"sysmon", 16}:  {"sysmon_status"},
	{"sysmon", 17}:  {"pipe_created"},
	{"sysmon", 18}:  {"pipe_created"},
	{"sysmon", 19}:  {"wmi_event"},
	{"sysmon", 20}:  {"wmi_event"},
	{"sysmon", 21}:  {"wmi_event"},
	{"sysmon", 22}:  {"dns_query"},
	{"sysmon", 23}:  {"file_delete"},
	{"sysmon", 24}:  {"clipboard_capture"},
	{"sysmon", 25}:  {"process_tampering"},
	{"sysmon", 26}:  {"file_delete", "file_delete_detected"},
	{"sysmon", 27}:  {"file_block_executable"},
	{"sysmon", 28}:  {"file_block_shredding"},
	{"sysmon", 29}:  {"file_executable_detected"},
	{"sysmon", 255}: {"sysmon_error"},

	{"security", 4688}: {"process_creation"},
	{"security", 4689}: {"process_termination"},
	{"security", 4657}: {"registry_event", "registry_set"},
	{"security", 5156}: {"network_connection"},

	{"powershell", 4103}:        {"ps_module"},
	{"powershell", 4104}:        {"ps_script"},
	{"powershell-classic", 400}: {"ps_classic_start"},
	{"powershell-classic", 600}: {"ps_classic_provider_start"},
	{"powershell-classic", 800}: {"ps_classic_script"},
}

// windowsNames are what the fields of audit events are called in the Sysmon
// events that stand for the same. An event then has both names.
var windowsNames = map[windowsEvent]map[string]string{
	{"security", 4688}: {
		"NewProcessName": "Image", "NewProcessId": "ProcessId", "ProcessId": "ParentProcessId", "ParentProcessName": "ParentImage",
		"SubjectUserName": "User", "SubjectLogonId": "LogonId", "MandatoryLabel": "IntegrityLevel",
	},
	{"security", 4689}: {"ProcessName": "Image"},
	{"security", 4657}: {"ObjectName": "TargetObject", "NewValue": "Details", "ProcessName": "Image"},
	{"security", 5156}: {
		"Application": "Image", "SourceAddress": "SourceIp", "SourcePort": "SourcePort", "DestAddress": "DestinationIp", "DestPort": "DestinationPort",
	},
}

// WindowsKind returns which log sources events of a channel with a number
// answer to, the first naming only the service, and how their fields are also
// called.
func WindowsKind(channel string, id int64) (sources []LogSource, names map[string]string) {
	service := WindowsServices[channel]
	e := windowsEvent{service, id}
	sources = append(sources, LogSource{Product: "windows", Service: service})
	for _, c := range windowsCategories[e] {
		sources = append(sources, LogSource{Product: "windows", Service: service, Category: c})
	}
	return sources, windowsNames[e]
}

// WindowsKinds lists the log sources of every kind of Windows event that the
// table tells apart, in a fixed order.
func WindowsKinds() [][]LogSource {
	channels := slices.Sorted(maps.Keys(WindowsServices))
	all := [][]LogSource{{{Product: "windows"}}}
	seen := map[string]bool{"": true}
	for _, channel := range channels {
		service := WindowsServices[channel]
		if seen[service] {
			continue
		}
		seen[service] = true
		all = append(all, []LogSource{{Product: "windows", Service: service}})
		var ids []int64
		for e := range windowsCategories {
			if e.service == service {
				ids = append(ids, e.id)
			}
		}
		slices.Sort(ids)
		for _, id := range ids {
			sources, _ := WindowsKind(channel, id)
			all = append(all, sources)
		}
	}
	return all
}
