package ocsf

// ProcessActivityUID is the OCSF class of processes that start and end.
const ProcessActivityUID = 1007

// What a process did: OCSF's activity_id of class 1007.
const (
	ActivityLaunch    = 1
	ActivityTerminate = 2
)

// The ordinals of process activity. This list and processFields are one table:
// it makes the manifest, the check of rules and the engine's layout.
const (
	ActivityID       = iota
	EventTime        // when
	ProcessPID       //
	ProcessUID       // unique on the host for ever: boot id, pid, start time
	ProcessName      // comm
	ProcessPath      // resolved path of the executable
	ProcessFileName  // its last component
	ProcessCmdLine   // arguments joined by one blank
	ProcessDirectory // working directory
	ProcessUserName
	ProcessUserUID
	ProcessSession   // terminal, or session id
	ProcessContainer // control group, empty outside containers
	ProcessLinks     // hard links of the executable; 0 is a memfd or a deleted file
	ProcessExitCode
	ParentPID
	ParentUID
	ParentPath
	ParentCmdLine
	ParentUserName

	processInputs // their number
)

var processFields = [processInputs]Field{
	ActivityID:       {"activity_id", "int", nil},
	EventTime:        {"time", "time", []string{"UtcTime"}},
	ProcessPID:       {"process.pid", "int", []string{"ProcessId", "pid"}},
	ProcessUID:       {"process.uid", "string", []string{"ProcessGuid"}},
	ProcessName:      {"process.name", "string", []string{"comm"}},
	ProcessPath:      {"process.file.path", "string", []string{"Image", "exe"}},
	ProcessFileName:  {"process.file.name", "string", []string{"ImageName"}},
	ProcessCmdLine:   {"process.cmd_line", "string", []string{"CommandLine", "proctitle"}},
	ProcessDirectory: {"process.working_directory", "string", []string{"CurrentDirectory", "cwd"}},
	ProcessUserName:  {"process.user.name", "string", []string{"User"}},
	ProcessUserUID:   {"process.user.uid", "string", []string{"LogonId", "uid"}},
	ProcessSession:   {"process.session.uid", "string", []string{"TerminalSessionId", "tty"}},
	ProcessContainer: {"process.container.uid", "string", []string{"ContainerId"}},
	ProcessLinks:     {"process.file.nlink", "int", nil},
	ProcessExitCode:  {"exit_code", "int", []string{"ExitCode"}},
	ParentPID:        {"process.parent_process.pid", "int", []string{"ParentProcessId", "ppid"}},
	ParentUID:        {"process.parent_process.uid", "string", []string{"ParentProcessGuid"}},
	ParentPath:       {"process.parent_process.file.path", "string", []string{"ParentImage"}},
	ParentCmdLine:    {"process.parent_process.cmd_line", "string", []string{"ParentCommandLine"}},
	ParentUserName:   {"process.parent_process.user.name", "string", []string{"ParentUser"}},
}

// ProcessInputs is how many inputs this build's definition of process activity
// says there are. How many its sensor supplies is the sensor's own constant;
// where the sensor is compiled, the two are compared.
const ProcessInputs = int(processInputs) + twinInputs

var processSources = []Source{
	{LogSource{Category: "process_creation", Product: "linux"}, ActivityID, ActivityLaunch},
	{LogSource{Category: "process_creation", Product: "linux", Service: "sysmon"}, ActivityID, ActivityLaunch},
	{LogSource{Category: "process_termination", Product: "linux"}, ActivityID, ActivityTerminate},
	{LogSource{Category: "process_termination", Product: "linux", Service: "sysmon"}, ActivityID, ActivityTerminate},
}

var processActivity = (&Class{
	UID:     ProcessActivityUID,
	Name:    "process_activity",
	Fields:  append(processFields[:], twinFields...),
	Sources: processSources,
}).Index()

// ProcessActivity is the class as this build defines it. Do not change it.
func ProcessActivity() *Class { return processActivity }
