"""Countries as data: ISO 3166-1 codes, telephone calling codes and trunk prefixes, US states.

Sources: ISO 3166-1 (as in `pycountry`), ITU E.164 (as in Google's libphonenumber), USPS state codes.
"""

from __future__ import annotations

from typing import Final

_ALPHA_3 = """
    ABWAW AFGAF AGOAO AIAAI ALAAX ALBAL ANDAD AREAE ARGAR ARMAM ASMAS ATAAQ ATFTF ATGAG AUSAU AUTAT AZEAZ BDIBI
    BELBE BENBJ BESBQ BFABF BGDBD BGRBG BHRBH BHSBS BIHBA BLMBL BLRBY BLZBZ BMUBM BOLBO BRABR BRBBB BRNBN BTNBT
    BVTBV BWABW CAFCF CANCA CCKCC CHECH CHLCL CHNCN CIVCI CMRCM CODCD COGCG COKCK COLCO COMKM CPVCV CRICR CUBCU
    CUWCW CXRCX CYMKY CYPCY CZECZ DEUDE DJIDJ DMADM DNKDK DOMDO DZADZ ECUEC EGYEG ERIER ESHEH ESPES ESTEE ETHET
    FINFI FJIFJ FLKFK FRAFR FROFO FSMFM GABGA GBRGB GEOGE GGYGG GHAGH GIBGI GINGN GLPGP GMBGM GNBGW GNQGQ GRCGR
    GRDGD GRLGL GTMGT GUFGF GUMGU GUYGY HKGHK HMDHM HNDHN HRVHR HTIHT HUNHU IDNID IMNIM INDIN IOTIO IRLIE IRNIR
    IRQIQ ISLIS ISRIL ITAIT JAMJM JEYJE JORJO JPNJP KAZKZ KENKE KGZKG KHMKH KIRKI KNAKN KORKR KWTKW LAOLA LBNLB
    LBRLR LBYLY LCALC LIELI LKALK LSOLS LTULT LUXLU LVALV MACMO MAFMF MARMA MCOMC MDAMD MDGMG MDVMV MEXMX MHLMH
    MKDMK MLIML MLTMT MMRMM MNEME MNGMN MNPMP MOZMZ MRTMR MSRMS MTQMQ MUSMU MWIMW MYSMY MYTYT NAMNA NCLNC NERNE
    NFKNF NGANG NICNI NIUNU NLDNL NORNO NPLNP NRUNR NZLNZ OMNOM PAKPK PANPA PCNPN PERPE PHLPH PLWPW PNGPG POLPL
    PRIPR PRKKP PRTPT PRYPY PSEPS PYFPF QATQA REURE ROURO RUSRU RWARW SAUSA SDNSD SENSN SGPSG SGSGS SHNSH SJMSJ
    SLBSB SLESL SLVSV SMRSM SOMSO SPMPM SRBRS SSDSS STPST SURSR SVKSK SVNSI SWESE SWZSZ SXMSX SYCSC SYRSY TCATC
    TCDTD TGOTG THATH TJKTJ TKLTK TKMTM TLSTL TONTO TTOTT TUNTN TURTR TUVTV TWNTW TZATZ UGAUG UKRUA UMIUM URYUY
    USAUS UZBUZ VATVA VCTVC VENVE VGBVG VIRVI VNMVN VUTVU WLFWF WSMWS YEMYE ZAFZA ZMBZM ZWEZW
"""
_CALLING = """
    AC247 AD376 AE971:0 AF93:0 AG1:1 AI1:1 AL355:0 AM374:0 AO244 AR54:0 AS1:1 AT43:0 AU61:0 AW297 AX358:0 AZ994:0
    BA387:0 BB1:1 BD880:0 BE32:0 BF226 BG359:0 BH973 BI257 BJ229 BL590:0 BM1:1 BN673 BO591:0 BQ599 BR55:0 BS1:1
    BT975 BW267 BY375:8 BZ501 CA1:1 CC61:0 CD243:0 CF236 CG242 CH41:0 CI225 CK682 CL56 CM237 CN86:0 CO57:0 CR506
    CU53:0 CV238 CW599 CX61:0 CY357 CZ420 DE49:0 DJ253 DK45 DM1:1 DO1:1 DZ213:0 EC593:0 EE372 EG20:0 EH212:0
    ER291:0 ES34 ET251:0 FI358:0 FJ679 FK500 FM691 FO298 FR33:0 GA241 GB44:0 GD1:1 GE995:0 GF594:0 GG44:0 GH233:0
    GI350 GL299 GM220 GN224 GP590:0 GQ240 GR30 GT502 GU1:1 GW245 GY592 HK852 HN504 HR385:0 HT509 HU36:06 ID62:0
    IE353:0 IL972:0 IM44:0 IN91:0 IO246 IQ964:0 IR98:0 IS354 IT39 JE44:0 JM1:1 JO962:0 JP81:0 KE254:0 KG996:0
    KH855:0 KI686:0 KM269 KN1:1 KP850:0 KR82:0 KW965 KY1:1 KZ7:8 LA856:0 LB961:0 LC1:1 LI423:0 LK94:0 LR231:0
    LS266 LT370:0 LU352 LV371 LY218:0 MA212:0 MC377:0 MD373:0 ME382:0 MF590:0 MG261:0 MH692:1 MK389:0 ML223 MM95:0
    MN976:0 MO853 MP1:1 MQ596:0 MR222 MS1:1 MT356 MU230 MV960 MW265:0 MX52 MY60:0 MZ258 NA264:0 NC687 NE227 NF672
    NG234:0 NI505 NL31:0 NO47 NP977:0 NR674 NU683 NZ64:0 OM968 PA507 PE51:0 PF689 PG675 PH63:0 PK92:0 PL48 PM508:0
    PR1:1 PS970:0 PT351 PW680 PY595:0 QA974 RE262:0 RO40:0 RS381:0 RU7:8 RW250:0 SA966:0 SB677 SC248 SD249:0
    SE46:0 SG65 SH290 SI386:0 SJ47 SK421:0 SL232:0 SM378 SN221 SO252:0 SR597 SS211:0 ST239 SV503 SX1:1 SY963:0
    SZ268 TA290 TC1:1 TD235 TG228 TH66:0 TJ992 TK690 TL670 TM993:8 TN216 TO676 TR90:0 TT1:1 TV688 TW886:0 TZ255:0
    UA380:0 UG256:0 US1:1 UY598:0 UZ998 VA39 VC1:1 VE58:0 VG1:1 VI1:1 VN84:0 VU678 WF681 WS685 XK383:0 YE967:0
    YT262:0 ZA27:0 ZM260:0 ZW263:0
"""
# Each number holds for the countries behind it; for all others it is 9.
_LONGEST = """
    4 TA 5 AC CK FK SH 6 FO GL NC NF WF 7 AW BN BQ BZ CV ER FJ FM GY IO KM MH MV NR NU PW SB SC SR ST TK TO TV VU 8
    AM BF BH BI BO BT BW CF CR CW CY DJ DK EE GA GI GT HK HN HT KI KW LB LS LT LV MD ME MK ML MO MR MT MU NE NI NO
    OM PA PF PG QA SG SI SJ SL SM SV SZ TD TG TL TM TN UY 10 AG AI AS AX BB BD BJ BM BS CA CD CI CO CU DM DO EG FI
    GB GD GG GR GU IE IM IN IQ IR IT JE JM JP KN KP KR KY KZ LA LC MM MN MP MS MX MY NG NP NZ PH PK PR RU SX TC TR
    TT US VA VC VE VG VI VN WS 11 AR BR CN LU NL 12 ID IL RS XK 13 AT 15 DE
"""
_US_STATES = """
    al alabama|ak alaska|az arizona|ar arkansas|ca california|co colorado|ct connecticut|de delaware
    |dc districtofcolumbia|fl florida|ga georgia|hi hawaii|id idaho|il illinois|in indiana|ia iowa|ks kansas
    |ky kentucky|la louisiana|me maine|md maryland|ma massachusetts|mi michigan|mn minnesota|ms mississippi
    |mo missouri|mt montana|ne nebraska|nv nevada|nh newhampshire|nj newjersey|nm newmexico|ny newyork
    |nc northcarolina|nd northdakota|oh ohio|ok oklahoma|or oregon|pa pennsylvania|pr puertorico|ri rhodeisland
    |sc southcarolina|sd southdakota|tn tennessee|tx texas|ut utah|vt vermont|va virginia|wa washington
    |wv westvirginia|wi wisconsin|wy wyoming
"""

ALPHA_3_TO_2: Final = {pair[:3]: pair[3:] for pair in _ALPHA_3.split()}
"""`USA` → `US`."""

ALPHA_2: Final = frozenset(ALPHA_3_TO_2.values())

CALLING: Final = {entry[:2]: (entry[2:].partition(":")[0], entry[2:].partition(":")[2]) for entry in _CALLING.split()}
"""`SE` → `("46", "0")`: calling code, and the trunk prefix of national numbers (empty where there is none)."""

CALLING_CODES: Final = frozenset(code for code, _ in CALLING.values())

LEADING_ZERO_CODES: Final = frozenset({"39", "378", "379", "225", "241", "242"})
"""Calling codes after which a 0 belongs to the number (Italy, San Marino, Vatican, Ivory Coast, Gabon, Congo)."""


def _longest() -> dict[str, int]:
    found = dict.fromkeys(CALLING, 9)
    length = 0
    for word in _LONGEST.split():
        if word.isdigit():
            length = int(word)
        else:
            found[word] = length
    return found


LONGEST: Final = _longest()
"""How many digits a number of a country has at most, without calling code and trunk prefix; where a leading 0 belongs to
numbers, of those without one."""

US_STATES: Final = {name: code for code, name in (pair.split() for pair in "".join(_US_STATES.split("\n")).split("|"))}
"""`newyork` → `ny`."""


def alpha_2(text: str) -> str | None:
    """The ISO 3166-1 alpha-2 code, upper case, of an alpha-2 or alpha-3 code in any case; None if it is neither."""
    code = text.strip().upper()
    if code == "UK":  # exceptionally reserved for the United Kingdom, and common in addresses
        return "GB"
    return code if code in ALPHA_2 else ALPHA_3_TO_2.get(code)
